"""The [train] part of a recipe: what it is made from, and `edgekit train`, which carries out this part alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import allowed, doctor, runs
from toolkit.core import LayerChange, Meaning, Model, PassContext, Preprocessing, Progress, Signature, TensorSpec
from toolkit.data import load_splits
from toolkit.errors import EdgekitError, InputError, UnavailableError
from toolkit.executor import Executor
from toolkit.recipe import Recipe
from toolkit.recipe_reader import load_recipe
from toolkit.training.asked import checked
from toolkit.training.make import INPUT, Work, images_contract
from toolkit.training.section import TrainSection

if TYPE_CHECKING:
    from toolkit.datasets.splits import Splits

# packages whose version is part of what a training is
VERSIONED = ("edgekit", "tensorflow", "keras", "numpy")


@dataclass(frozen=True)
class Trained:
    """What `edgekit train` made, what each phase did, and its curves."""

    path: Path
    changes: tuple[LayerChange, ...]
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "path": str(self.path)}

    def lines(self) -> Iterator[str]:
        """For a person."""
        for change in self.changes:
            yield f"{change.layer}: {change.before} -> {change.after} ({change.reason})"
        yield f"wrote {self.path}"


def train(
    recipe: str | Path,
    *,
    out: Path,
    data: str | None = None,
    overrides: Sequence[str] = (),
    allow_code: Sequence[str] = (),
    resume: bool = False,
    emit: Callable[[Progress], None] = lambda progress: None,
) -> Trained:
    """Make the trained model that a recipe's [train] describes, and nothing else; the test split is not looked at.

    The state after each epoch lies in a folder beside `out` until it is finished; `resume` goes on from there.
    """
    loaded = load_recipe(recipe, data=data, overrides=overrides, allow_code=allow_code)
    if loaded.train is None:
        raise InputError(str(recipe), "has no [train] section", "name a recipe that makes its model")
    loaded.require_runnable()
    if out.suffix != ".keras":
        raise InputError("--out", f"must be a .keras file, got {out.name!r}")
    folder = out.with_name(f"{out.name}.training")
    _check_folder(folder, resume)
    planned = contract(loaded)
    opening: dict[str, Any] = {
        "spec": loaded.data,
        "preprocessing": planned.preprocessing,
        "seed": loaded.seed,
        "input_name": INPUT,
        "allow_code": loaded.allow_code,
    }
    emit(Progress("reading and hashing images", keep=True))
    splits = load_splits(**opening)
    for warning in splits.warnings:
        emit(Progress(f"warning: {warning}", keep=True))
    head_of(loaded, splits)
    found = doctor.versions()
    key = key_of(loaded, fingerprints(splits), {name: found.get(name) for name in VERSIONED})
    opening["chosen"] = splits.chosen
    _make(folder)
    try:
        with Executor(folder / "log.txt", emit, loaded.allow_code) as executor:
            executor.call("use_data", **opening)
            facts = executor.call("train", **job(loaded, planned.preprocessing, key, folder, out.absolute()))
    except (KeyboardInterrupt, EdgekitError):
        if any(folder.glob("*.npz")):
            emit(Progress("the training stopped; the same command with --resume takes it up again", keep=True))
        else:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return Trained(out, facts.changes, facts.curves or {})


def contract(recipe: Recipe) -> Model:
    """What is known of the model before it is made: its image, not its outputs."""
    section = _section(recipe)
    preprocessing = images_contract(section, recipe.data.preprocess, recipe.where)
    channels = 1 if preprocessing.color == "gray" else 3
    size = preprocessing.size or (None, None)
    image = TensorSpec(INPUT, (None, *size, channels), "float32", "image", "NHWC")
    return Model("keras", None, Signature((image,), ()), preprocessing)


def head_of(recipe: Recipe, splits: Splits) -> Meaning:
    """What the model's output will mean; raises InputError for data that nothing can be learned from."""
    context = PassContext(train=splits.train, selection=splits.selection)
    return checked(_section(recipe), context, recipe.model.head)[1]


def job(recipe: Recipe, preprocessing: Preprocessing, key: str, folder: Path, save_as: Path) -> dict[str, Any]:
    """The arguments of `Stages.train`."""
    return {
        "section": _section(recipe),
        "preprocessing": preprocessing,
        "head": recipe.model.head,
        "seed": recipe.seed,
        "work": Work(folder, key),
        "save_as": save_as,
        "allow_code": recipe.allow_code,
    }


def key_of(recipe: Recipe, prints: Mapping[str, str], versions: Mapping[str, Any]) -> str:
    """Hash of all that a training depends on."""
    section = _section(recipe)
    files = [runs.content_sha256(path) for path in (*section.files, *allowed.files(recipe.allow_code))]
    data = [prints.get(name) for name in ("train", "selection")]
    return runs.content_key("train", section.resolved(), recipe.model.head, files, data, recipe.seed, versions)


def fingerprints(splits: Splits) -> dict[str, str]:
    """Of each split there is."""
    return {split.name: split.fingerprint for split in splits.present()}


def _section(recipe: Recipe) -> TrainSection:
    if recipe.train is None:
        raise InputError(recipe.name, "has no [train] section")
    return recipe.train


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(str(folder), f"cannot be written: {error.strerror}") from error


def _check_folder(folder: Path, resume: bool) -> None:
    """An earlier training is gone on with or removed by its owner, never written over."""
    begun = folder.is_dir() and any(folder.glob("*.npz"))
    if begun and not resume:
        fix = "give --resume to go on with it, or remove the folder"
        raise InputError(os.fspath(folder), "holds a training that was not finished", fix)
    if resume and not begun:
        raise InputError("--resume", f"there is nothing to go on with in {folder}", "leave it out")
