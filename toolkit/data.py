"""A recipe's data section to its four splits, and whether data and model speak of the same classes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.core import Preprocessing, Records
from toolkit.errors import InputError

if TYPE_CHECKING:
    from toolkit.datasets.splits import Chosen, Splits
    from toolkit.recipe import DataSpec, Recipe


def load_splits(
    spec: DataSpec,
    preprocessing: Preprocessing,
    *,
    seed: int,
    input_name: str = "image",
    allow_code: Collection[str] = (),
    chosen: Chosen | None = None,
) -> Splits:
    """Train, selection, calibration and test, drawn the same way for the same seed, and images without labels.

    allow_code: modules a dataset may run code of. chosen: what an earlier call chose, so that no image is looked at
    again. Raises InputError for an empty, unreadable or mislabelled dataset, or counts it cannot give.
    """
    from toolkit.datasets.splits import make_splits, open_splits
    from toolkit.datasets.unlabelled import without_labels

    if spec.records is None:
        raise InputError("recipe", "data.path is not given", "give --data PATH")
    main = load_records(spec.records.component, allow_code)
    held_out = load_records(spec.held_out.component, allow_code) if spec.held_out else None
    more = without_labels(load_records(spec.unlabelled.component, allow_code)) if spec.unlabelled else None
    if chosen is not None:
        return open_splits(main, held_out, chosen, preprocessing, input_name=input_name, unlabelled=more)
    return make_splits(
        main,
        held_out,
        spec.splits,
        preprocessing,
        seed,
        input_name=input_name,
        census=spec.census,
        unlabelled=more,
    )


def load_records(dataset: Any, allow_code: Collection[str] = ()) -> Records:
    """A dataset's records. Only those that say so are told which modules they may run code of."""
    found: Records = dataset.load(allow_code) if getattr(dataset, "runs_code", False) else dataset.load()
    return found


def unlabelled_problems(recipe: Recipe, passes: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Why images without labels would not be learned from. passes: (where it stands, component) of each."""
    if recipe.data.unlabelled is None:
        return
    learning = [(where, one) for where, component in passes for one in learning_unlabelled(component)]
    for where, one in learning:
        if one.no_unlabelled:
            yield f"{where}: {one.called}.{': '.join(one.no_unlabelled)}. Fix: set unlabelled = false"
    if not learning:
        problem = "no pass learns from a teacher on them"
        yield f"{recipe.where('data', 'unlabelled')}: {problem}. Fix: add a distill pass, or leave them out"


def learning_unlabelled(component: Any) -> list[Any]:
    """The trainings of a pass, itself or the one inside, that learn from images without labels."""
    trainings: tuple[Any, ...] = (component, getattr(component, "recover", None))
    return [one for one in trainings if getattr(one, "unlabelled", False) and one.epochs]


def check_classes(model: Sequence[str], data: Sequence[str]) -> None:
    """Raise InputError, naming the first difference, where model and data do not list the same classes in one order."""
    if len(model) != len(data):
        problem = f"model.classes names {len(model)} classes, the data has {len(data)}"
        raise InputError("data", problem, "give both the same classes in the same order")
    for place, (own, other) in enumerate(zip(model, data, strict=True)):
        if own != other:
            moved = f" (the data's class {list(data).index(own)})" if own in data else ""
            problem = f"class {place} is {own!r} in the model{moved}, {other!r} in the data"
            fix = "list the data's classes in the model's order, or correct model.classes"
            raise InputError("data", problem, fix)


def class_names(names: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """The model's class names as [model] gives them; () where it does not."""
    from toolkit.datasets.labels import class_list

    return tuple(names) if names else tuple(class_list(file)) if file is not None else ()
