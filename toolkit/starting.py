"""`edgekit init`: looks at a model, a device and images, and writes the recipe to begin with.

What is written is read and planned before anybody sees it: a first recipe that does not work is no beginning.
"""

from __future__ import annotations

import os
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from toolkit import registry, runs
from toolkit.checks import fit
from toolkit.core import Dataset, Kind, TensorSpec
from toolkit.data import load_records
from toolkit.devices import load_device, shipped
from toolkit.documents import Document, key_lines
from toolkit.errors import InputError, UnsupportedError
from toolkit.first_recipe import Images, Seen, first_recipe
from toolkit.inspection import inspect_file
from toolkit.overrides import toml_value, with_data
from toolkit.plan import Plan, make_plan, source_of
from toolkit.recipe_reader import parse_recipe
from toolkit.schema import Reader, paths_in

SCALING = ("Rescaling", "Normalization")  # layers that bring pixels to what a network was trained on


@dataclass(frozen=True)
class Started:
    """The text of a recipe, and what its plan says that is worth knowing."""

    text: str
    plan: Plan


def start(
    model: Path, device: str, *, data: str | None = None, out: Path | None = None, allow_code: tuple[str, ...] = ()
) -> Started:
    """A first recipe for a model file on a device, written to `out` where that is given.

    data: a path, a dataset's name, or a table of a path and its parameters, as `edgekit eval` takes it. Paths in the
    recipe start from its folder, or from here. Raises InputError or UnsupportedError for a model that a recipe cannot
    start from, a device that runs nothing of it, images that do not fit, and an `out` that is there already.
    """
    if out is not None and out.exists():
        raise InputError(str(out), "is there already", "name another file, or remove it")
    profile, base = load_device(device), out.absolute().parent if out else Path.cwd()
    seen = look(model, base, allow_code)
    images = None if data is None else _images(data, base, seen, allow_code)
    named = device if device in shipped("devices") else _from(Path(device), base)
    text = first_recipe(seen, profile, named, images)
    plan = make_plan(parse_recipe(_document(text, out), base))
    if plan.problems:
        raise InputError("init", f"no recipe that works could be written: {plan.problems[0]}")
    if out is not None:
        runs.make_folder(base)
        runs.write_atomically(out, text.encode())
    return Started(text, plan)


def lines(started: Started, out: Path | None) -> Iterator[str]:
    """What `edgekit init` prints: the recipe, or where it was written and what to do next."""
    if out is None:
        yield started.text.rstrip("\n")
        return
    yield f"wrote {out}"
    yield from (f"  CHECK: {line.removeprefix('# CHECK: ')}" for line in started.text.splitlines() if "# CHECK" in line)
    yield from (f"  missing here: {text}" for text in started.plan.missing)
    given = "" if started.plan.recipe.data.records else " --data IMAGES"
    yield f"next: edgekit plan {out}, then edgekit run {out}{given}"


# ---------------------------------------------------------------- the model


def look(model: Path, base: Path, allow_code: tuple[str, ...] = ()) -> Seen:
    """What a model file is, as far as a recipe depends on it; imports TensorFlow in a process of its own."""
    found = inspect_file(model, allow_code=allow_code)
    if len(found["inputs"]) != 1:
        raise UnsupportedError(str(model), f"has {len(found['inputs'])} inputs, and recipes give one image")
    if found.get("scheme", "float32") != "float32":
        fix = "start from the float model; `edgekit bench` and `edgekit eval` take this one"
        raise UnsupportedError(str(model), f"is {found['scheme']} already", fix)
    shape, output = found["inputs"][0]["shape"], found["outputs"][0]
    if len(shape) != 4:
        raise UnsupportedError(str(model), f"takes {_shown(shape)}, and recipes give images (4 dimensions)")
    first = found["inputs"][0]["layout"] == "NCHW" or (shape[1] in (1, 3) and shape[3] not in (1, 3))
    layers = found.get("layers", ())
    return Seen(
        source=_from(model, base),
        kind=_kind(model),
        head=output["meaning"],
        outputs=output["shape"][-1] if output["shape"] else None,
        parameters=found.get("parameters"),
        macs=found.get("macs"),
        size=(shape[2], shape[3]) if first else (shape[1], shape[2]),
        scaled=next((row["layer"] for row in layers if row["kind"] in SCALING), ""),
        prunable=found["takes"].get("pass prune", "no").startswith("yes: "),
    )


def _kind(model: Path) -> Kind:
    """The kind of graph that its source reads it as."""
    source = registry.load("sources", str(source_of(model)))
    ask = getattr(source, "kind_of", None)
    kind: Kind = ask(model) if ask else getattr(source, "kind", "keras")
    return kind


def _shown(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


# ---------------------------------------------------------------- the images


def _images(data: str, base: Path, model: Seen, allow_code: tuple[str, ...]) -> Images:
    """How many images there are, and whether they are such as the model can be judged on."""
    table = _table(data)
    given = {key: value for key, value in table.items() if key != "use"}
    reader = Reader(Document("--data", given))
    dataset = reader.read(registry.load("datasets", table["use"]), given)
    reader.finish()
    records = load_records(dataset, allow_code)
    if not len(records):
        raise InputError("--data", f"holds no image, got {data!r}")
    if model.head in fit.TARGETS:
        output = TensorSpec("output", (None, model.outputs), "float32", model.head)
        fit.check_data(output, cast("Dataset", records))
    paths = {key[0]: _from(path, base) for key, path in paths_in(dataset) if key[0] in table} if dataset else {}
    return Images({**table, **paths}, len(records), len(records.classes), Counter(records.subsets))


def _table(data: str) -> dict[str, Any]:
    """[data] as `--data` means it: a path, a dataset's name, or a table with a path and more of its parameters."""
    more = toml_value(data) if data.startswith("{") else {}
    if not isinstance(more, dict) or (more and not isinstance(more.get("path"), str)):
        fix = 'write {path = "labels.csv", label = "kind"}'
        raise InputError("--data", f"is no table with a path, got {data}", fix)
    return {**with_data(Document("--data", {}), more.get("path", data)).data["data"], **more}


def _from(path: Path, base: Path) -> str:
    """A path as the recipe writes it: from its folder where it lies below, else whole."""
    whole = Path(os.path.normpath(path.expanduser().absolute()))
    return str(whole.relative_to(base) if whole.is_relative_to(base) else whole)


def _document(text: str, out: Path | None) -> Document:
    name = str(out) if out else "recipe.toml"
    return Document(name, tomllib.loads(text), text.encode(), key_lines(text))
