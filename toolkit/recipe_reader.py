"""A recipe from its file: the command line's changes applied, every default filled in, all mistakes named at once.

It imports no framework: only the components the recipe names, which are light.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit import registry
from toolkit.core import Budget, MeasureSpec
from toolkit.datasets.census import CensusSpec
from toolkit.datasets.preprocess import PreprocessSpec
from toolkit.datasets.splits import SplitSpec
from toolkit.datasets.unlabelled import LOOSE, Loose
from toolkit.devices import DeviceProfile, find, load_device, reached, registered, safe_name, shipped
from toolkit.documents import Document, Key, dotted, read_toml
from toolkit.errors import InputError
from toolkit.extending import read_recipe
from toolkit.overrides import dataset_kind, dataset_kinds, with_data, with_override
from toolkit.recipe import DataSpec, Recipe, Step, Target, Variant
from toolkit.recipe_file import APPLICATIONS, DATA_KEYS, ModelSection, RecipeFile, TargetSection
from toolkit.schema import Component, Reader, paths_in, relocated, shown
from toolkit.training.section import TrainSection

RESERVED = "original"  # the model as it was read, in stages, artifacts and measurements


def load_recipe(
    name_or_path: str | Path,
    *,
    overrides: Sequence[str] = (),
    model: str | Path | None = None,
    data: str | Path | None = None,
    devices: Sequence[str] = (),
    allow_code: Sequence[str] = (),
    **places: Any,
) -> Recipe:
    """The recipe at a path, or the shipped one of that name; raises InputError with a line for each mistake.

    overrides: `passes.0.sparsity=0.6`; items of a list by number or by their name (`variants.phone.export.0.layout`).
    model: replaces model.source. data: a path or a dataset's name; replaces data.use and data.path and, where another
    kind of dataset comes of it, the parameters of the old one. devices: replaces the targets by these, each with
    the budget it has in the recipe, if it is there. allow_code: names of modules that may be imported and run.
    places: ssh, adb, replay, record: where devices are, as `devices.reached` takes them.
    """
    path = find("recipes", name_or_path)
    document = read_recipe(path)
    if model is not None:
        given = str(model) if str(model).startswith(APPLICATIONS) else str(Path(model).expanduser().absolute())
        document = document.with_option(("model", "source"), given, "--model")
    if data is not None:
        document = with_data(document, str(data))
    for override in overrides:
        document = with_override(document, override)
    recipe = parse_recipe(document, path.absolute().parent, devices=devices)
    profiles = reached([target.profile for target in recipe.targets], **places)
    targets = tuple(replace(target, profile=at) for target, at in zip(recipe.targets, profiles, strict=True))
    return replace(recipe, allow_code=tuple(allow_code), targets=targets)


def parse_recipe(document: Document, base: Path, *, devices: Sequence[str] = ()) -> Recipe:
    """The recipe a document holds, such as what `Recipe.resolved` gave; relative paths start from `base`."""
    return _Loader(document, base).load(devices)


def check_file(name_or_path: str | Path) -> dict[str, Any]:
    """Check a recipe or a device profile, a path or a shipped name: its kind, name and resolved content."""
    name, known = str(name_or_path), shipped("devices")
    if not Path(name).expanduser().is_file():
        device = name in known and name not in shipped("recipes")
    else:
        device = not {"arch", "transport", "runtimes"}.isdisjoint(read_toml(Path(name).expanduser()).data)
    if device:
        profile = load_device(name)
        return {"kind": "device profile", "name": profile.name, "content": profile.model_dump(mode="json")}
    recipe = load_recipe(name)
    return {"kind": "recipe", "name": recipe.name, "content": recipe.resolved()}


# ---------------------------------------------------------------- reading


class _Loader:
    """Reads one document; every method notes mistakes and goes on, `load` raises them together."""

    def __init__(self, document: Document, base: Path) -> None:
        self.document, self.base, self.reader = document, base, Reader(document)
        self.raw = {key: value for key, value in document.data.items() if key != "schema"}

    def load(self, devices: Sequence[str]) -> Recipe:
        self.reader.version()
        if "extends" in self.raw:  # those of files are merged by now
            self.reader.wrong(("extends",), "says what a file extends, which cannot be set", "write it in a recipe")
        file = self.reader.read(RecipeFile, self.raw, also=("schema",))
        self._check_one_model(file)
        data = self._data()
        trunk = self._steps("passes", ("passes",), self.raw.get("passes"))
        metrics = self._steps("metrics", ("metrics",), self.raw.get("metrics"))
        variants = self._variants()
        if file is not None and file.repair is not None and file.repair.qat:
            self.reader.read(registry.load("passes", "qat"), file.repair.qat, ("repair", "qat"))
        targets = list(self._targets(file, [variant.name for variant in variants], devices))
        self.reader.finish()
        if file is None or data is None:
            raise InputError(self.document.name, "cannot be read")
        model, train = self._located_model(file.model), self._located_train(file.train)
        return Recipe(
            name=file.name or safe_name(Path(self.document.name).stem),
            description=file.description,
            seed=file.seed,
            model=model,
            data=data,
            passes=trunk,
            variants=variants,
            targets=tuple(targets),
            budget=file.budget,
            measure=file.measure,
            base=self.base,
            text=self.document.text,
            document=self.document,
            metrics=metrics,
            train=train,
            diagnosis=file.diagnosis,
            report=file.report,
            repair=file.repair,
            card=file.card,
        )

    def _steps(self, family: str, key: Key, items: Any) -> tuple[Step, ...]:
        steps = (self._step(family, (*key, index), item) for index, item in enumerate(_list(items)))
        return tuple(step for step in steps if step is not None)

    def _step(self, family: str, key: Key, item: Any) -> Step | None:
        table = {"use": item} if isinstance(item, str) else item
        if not isinstance(table, dict):
            return None  # noted by RecipeFile
        use = table.get("use")
        what = {"passes": "pass"}.get(family, family.removesuffix("s"))
        if use is None:
            self.reader.wrong(
                (*key, "use"), "is missing", f"add `use`, one of {', '.join(sorted(registry.names(family)))}"
            )
            return None
        if not registered(family, use):
            self.reader.unknown(key if isinstance(item, str) else (*key, "use"), use, what, registry.names(family))
            return None
        parameters = {name: value for name, value in table.items() if name != "use"}
        also = DATA_KEYS if key == ("data",) else ("use",)
        component = self.reader.read(registry.load(family, use), parameters, key, also=also)
        if component is not None and family == "passes":
            places = {path: (*key, *inner) for inner, path in paths_in(component)}
            component = relocated(component, lambda path: self._path(path, places[path]))
        return None if component is None else Step(use, component, key)

    def _variants(self) -> tuple[Variant, ...]:
        tables = [(("variants", i), table) for i, table in enumerate(_list(self.raw.get("variants")))]
        exports = _list(self.raw.get("export"))
        if tables and exports:
            below = self.document.origin(("export",)) != self.document.origin(("variants",))
            fix = "write `export = []` beside the variants" if below else "move it into the variants"
            self.reader.wrong(("export",), "stands beside [[variants]], which have exports of their own", fix)
        if not tables:
            if not exports:
                self.reader.wrong(("export",), "is missing", 'add `export = ["tflite"]`, or [[variants]]')
            return (Variant("main", (), self._exports(("export",), exports)),)
        self._check_variant_names([(key, str(_dict(table).get("name", ""))) for key, table in tables])
        return tuple(self._variant(key, _dict(table)) for key, table in tables)

    def _variant(self, key: Key, table: dict[str, Any]) -> Variant:
        return Variant(
            name=str(table.get("name", "")),
            passes=self._steps("passes", (*key, "passes"), table.get("passes")),
            exports=self._exports((*key, "export"), table.get("export")),
            description=str(table.get("description", "")),
        )

    def _exports(self, key: Key, items: Any) -> tuple[Step, ...]:
        steps = self._steps("exporters", key, items)
        seen: set[str] = set()
        for step in steps:
            if step.component.suffix in seen:  # tensorrt has one for each of its forms
                problem = f"{step.use} stands here twice, and both files would have one name"
                self.reader.wrong(step.key, problem, "make it another variant")
            seen.add(step.component.suffix)
        return steps

    def _check_variant_names(self, named: Iterable[tuple[Key, str]]) -> None:
        first: dict[str, Key] = {}
        for key, name in named:
            if name.lower() == RESERVED:
                problem = f"{name!r} is what the model before any pass is called"
                self.reader.wrong((*key, "name"), problem, "give the variant another name")
            twin = first.setdefault(name.lower(), key)
            if name and twin != key:
                here, there = self.document.origin((*key, "name")), self.document.origin((*twin, "name"))
                line = f"line {self.document.line((*twin, 'name'))}" + (f" of {there}" if there != here else "")
                problem = f"{name!r} is the name of the variant in {line}, up to upper and lower case"
                self.reader.wrong((*key, "name"), problem, "give each variant a name of its own")

    def _data(self) -> DataSpec | None:
        table = _dict(self.raw.get("data"))
        held_out = None
        if table.get("held_out") is not None:
            held_out = self._records(("data", "held_out"), table["held_out"])
        unlabelled = self._unlabelled(table["unlabelled"]) if table.get("unlabelled") is not None else None
        splits = self.reader.read(SplitSpec, _without_train(table.get("splits", {})), ("data", "splits"))
        preprocess = self.reader.read(PreprocessSpec, table.get("preprocess", {}), ("data", "preprocess"))
        expected = {key: table[key] for key in CensusSpec.model_fields if key in table}
        census = self.reader.read(CensusSpec, expected, ("data",))
        records = self._records(("data",), {key: table[key] for key in table if key not in DATA_KEYS[1:]})
        if splits is None or preprocess is None or census is None:
            return None
        if table:
            self._check_rest(splits, table.get("held_out") is not None)
        return DataSpec(records, preprocess, splits, held_out, census, unlabelled)

    def _unlabelled(self, given: Any) -> Step | None:
        """Images without labels: a folder of them, by its path, or any dataset, whose labels are not looked at."""
        key: Key = ("data", "unlabelled")
        table = {"path": given} if isinstance(given, str) else given
        if not isinstance(table, dict):
            self.reader.wrong(key, f"must be a path or a table, got {shown(given)}", "give a folder of images")
            return None
        written = key if isinstance(given, str) else (*key, "path")
        path = self._path(table["path"], written) if _is_text(table, "path") else None
        use = table.get("use") or (LOOSE if path and dataset_kind(path) in ("folder", None) else None)
        if use != LOOSE:
            return self._records(key, {**table, "path": str(path)} if path else table)
        parameters = {name: value for name, value in table.items() if name != "use"}
        component = self.reader.read(Loose, {**parameters, **({"path": str(path)} if path else {})}, key, also=("use",))
        return None if component is None else Step(LOOSE, component, key)

    def _check_rest(self, splits: SplitSpec, held_out: bool) -> None:
        """Two splits of the same images cannot both be what is left."""
        pools = (("train", "calibration"), ("selection", "test")) if held_out else (tuple(SplitSpec.model_fields),)
        for pool in pools:
            rest = [name for name in pool if getattr(splits, name) == "rest"]
            if len(rest) > 1:
                key, fix = ("data", "splits", rest[-1]), f"say how much {rest[-1]} gets, such as {rest[-1]} = 0.2"
                self.reader.wrong(key, f'{" and ".join(rest)} are both "rest", that is all that is left', fix)

    def _records(self, key: Key, table: Any) -> Step | None:
        if not isinstance(table, dict):
            self.reader.wrong(key, f"must be a table, got {shown(table)}")
            return None
        if not table and key == ("data",):
            return None  # the command line may bring it
        path = table.get("path")
        place = self._path(path, (*key, "path")) if isinstance(path, str) else None
        use = table.get("use") or (dataset_kind(place) if place else None)
        if use is None and path is None:
            self.reader.wrong((*key, "path"), "is missing, and nothing else says what dataset this is", "add `path`")
            return None
        if use is None:
            self.reader.wrong(
                (*key, "path"), f"cannot tell what kind of dataset this is, got {shown(path)}", dataset_kinds()
            )
            return None
        return self._step("datasets", key, {**self._located(use, table, key), "use": use})

    def _located(self, use: Any, table: dict[str, Any], key: Key) -> dict[str, Any]:
        """The dataset's parameters, its paths whole."""
        fields = registry.load("datasets", use).model_fields if registered("datasets", use) else {}
        paths = [name for name, field in fields.items() if "Path" in repr(field.annotation)]
        return {
            **table,
            **{name: str(self._path(table[name], (*key, name))) for name in paths if _is_text(table, name)},
        }

    def _path(self, written: str | Path, key: Key) -> Path:
        """From the folder of the recipe, or of the one it extends that says so, or from here for the command line."""
        elsewhere = self.document.given(key) or self.document.origin(key) != self.document.name
        folder = self.document.folder(key) if elsewhere else self.base
        return Path(os.path.normpath(folder / Path(written).expanduser()))

    def _located_model(self, model: ModelSection) -> ModelSection:
        """The section with its paths whole."""
        update: dict[str, Any] = {}
        if model.source is not None and not model.application:
            update["source"] = self._path(model.source, ("model", "source"))
        if model.classes_file is not None:
            update["classes_file"] = self._path(model.classes_file, ("model", "classes_file"))
        if model.weights is not None and model.weights != "imagenet":
            update["weights"] = str(self._path(model.weights, ("model", "weights")))
        return model.model_copy(update=update)

    def _located_train(self, train: TrainSection | None) -> TrainSection | None:
        """The section with its paths whole."""
        if train is None:
            return None
        named = {train.weights: ("train", "weights"), train.backbone: ("train", "backbone")}
        return train.located(lambda text: self._path(text, named.get(text, ("train",))))

    def _check_one_model(self, file: RecipeFile | None) -> None:
        """A trained model is read or made, not both."""
        if file is None or file.train is None:
            return
        for name in sorted(file.model.model_fields_set - {"head", "classes", "classes_file"}):
            if getattr(file.model, name) != type(file.model).model_fields[name].default:
                self.reader.wrong(("model", name), "stands beside [train], which makes the model", "leave one out")

    def _targets(self, file: RecipeFile | None, variants: list[str], devices: Sequence[str]) -> Iterator[Target]:
        judged: dict[tuple[str, str], str] = {}
        for key, section in self._target_sections(file, devices):
            profile = self._profile(key, section.device)
            for index, name in enumerate(section.variants):
                if name not in variants:
                    self.reader.unknown((*key, "variants", index), name, "variant", filter(None, variants))
            if profile is None or file is None:
                continue
            meant = section.variants or tuple(variants)
            for name in meant:
                if (profile.name, name) in judged:
                    problem = f"{profile.name} already judges variant {name!r} ({judged[profile.name, name]})"
                    self.reader.wrong((*key, "device"), problem, "merge the two targets")
                judged[profile.name, name] = dotted(key)
            yield Target(
                device=self._located_device(key, section.device),
                profile=profile,
                variants=meant,
                budget=_merged(Budget, file.budget, section.budget),
                measure=_merged(MeasureSpec, profile.measure, file.measure, section.measure),
            )

    def _target_sections(self, file: RecipeFile | None, devices: Sequence[str]) -> list[tuple[Key, TargetSection]]:
        """What the recipe's targets say, or what `--device` picks from them; tables with mistakes are left out."""
        written: list[tuple[Key, TargetSection]] = []
        for index, table in enumerate(_list(self.raw.get("targets"))):
            names = [name for name in _list(_dict(table).get("variants")) if isinstance(name, str)]
            if file is not None:
                written.append((("targets", index), file.targets[index]))
            elif _is_text(_dict(table), "device"):
                written.append((("targets", index), TargetSection(device=table["device"], variants=tuple(names))))
        if not devices:
            return written or [(("targets",), TargetSection(device="this-machine"))]
        chosen: list[tuple[Key, TargetSection]] = []
        for name in dict.fromkeys(devices):
            chosen += [pair for pair in written if pair[1].device == name] or [
                (("--device", name), TargetSection(device=name))
            ]
        return chosen

    def _located_device(self, key: Key, device: str) -> str:
        """The path of a profile's file, whole, so that it is found from anywhere; a shipped name as it is."""
        path = Path(device).expanduser().absolute() if key[0] == "--device" else self._path(device, (*key, "device"))
        return str(path) if path.is_file() else device

    def _profile(self, key: Key, device: str) -> DeviceProfile | None:
        if key[0] == "--device":
            return load_device(device)
        known, path = shipped("devices"), self._path(device, (*key, "device"))
        if not path.is_file() and device not in known:
            self.reader.unknown((*key, "device"), device, "device profile", known)
            return None
        return load_device(path if path.is_file() else device)


def _merged(cls: Any, *sections: Component) -> Any:
    """Fields of later sections over those of earlier ones, as far as they were given."""
    fields: dict[str, Any] = {}
    for section in sections:
        fields |= {name: getattr(section, name) for name in section.model_fields_set}
    return cls(**fields)


def _without_train(splits: Any) -> Any:
    """Train is what is left, unless the recipe says that this goes to another split."""
    if isinstance(splits, dict) and "rest" in (splits.get("test"), splits.get("calibration"), splits.get("selection")):
        return {"train": None, **splits}
    return splits


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_text(table: dict[str, Any], name: str) -> bool:
    return isinstance(table.get(name), str)
