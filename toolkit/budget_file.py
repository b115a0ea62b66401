"""Limits by themselves: a TOML file with `[budget]` and `[[targets]]` as a recipe has them, or a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.budget import Budget
from toolkit.devices import load_device, shipped
from toolkit.documents import Document, read_toml
from toolkit.recipe_reader import load_recipe
from toolkit.schema import Component, Reader

RECIPE_KEYS = frozenset({"extends", "model", "train", "data", "passes", "variants", "export"})
"""What no file of limits has and every recipe has some of."""


class BudgetTarget(Component):
    """[[targets]]: a device, and the limits that hold there in place of those of [budget]."""

    device: str
    """A device as the run calls it."""
    variants: tuple[str, ...] = ()
    """Names of the variants it is meant for; all of them by default."""
    budget: Budget = Budget()
    """Limits that replace those of [budget] here."""


class BudgetFile(Component):
    """A file of limits."""

    budget: Budget = Budget()
    """What must hold of every artifact on every device."""
    targets: tuple[BudgetTarget, ...] = ()
    """Devices with limits of their own."""


@dataclass(frozen=True)
class Limits:
    """What must hold. default: everywhere; devices: (device, variant or "") -> what holds there instead."""

    source: str
    default: Budget
    devices: Mapping[tuple[str, str], Budget] = field(default_factory=dict)

    def of(self, variant: str, device: str) -> Budget:
        """Of a variant's files on a device."""
        return self.devices.get((device, variant)) or self.devices.get((device, "")) or self.default

    def asked(self, variant: str) -> Iterator[str]:
        """Devices that are named for a variant."""
        return iter(dict.fromkeys(device for device, of in self.devices if of in ("", variant)))


def read_limits(path: Path, known: Iterable[str]) -> Limits:
    """The limits in a file; InputError with a line for each mistake. known: devices of the run they are for."""
    document = read_toml(path)
    if RECIPE_KEYS & document.data.keys():
        recipe = load_recipe(path)
        return of_targets(str(path), recipe.budget, recipe.targets)
    reader, names = Reader(document), tuple(known)
    reader.version()
    read = reader.read(BudgetFile, {key: value for key, value in document.data.items() if key != "schema"})
    found: dict[tuple[str, str], Budget] = {}
    for place, target in enumerate(read.targets if read else ()):
        device = _device(target.device, names)
        if device is None:
            reader.unknown(("targets", place, "device"), target.device, "device", dict.fromkeys([*names, *_profiles()]))
            continue
        for variant in target.variants or ("",):
            if (device, variant) in found:
                reader.wrong(("targets", place, "device"), f"{device} stands here twice", "merge the two targets")
            found[device, variant] = merged(read.budget, target.budget) if read else target.budget
    _require_limits(reader, document, read, found)
    reader.finish()
    return Limits(str(path), read.budget if read else Budget(), found)


def of_targets(source: str, budget: Budget, targets: Iterable[Any]) -> Limits:
    """Of a recipe: every target's own, merged already."""
    found = {(target.profile.name, variant): target.budget for target in targets for variant in target.variants}
    return Limits(source, budget, found)


def merged(below: Budget, above: Budget) -> Budget:
    """Limits over others, as far as they are given."""
    return below.model_copy(update={name: getattr(above, name) for name in above.model_fields_set})


def name_of(device: str) -> str:
    """What a run calls a device that its recipe names by a shipped name or by a profile's path."""
    path = Path(device)
    if path.suffix == ".toml":
        return load_device(path).name if path.is_file() else path.stem
    return device


def _device(written: str, names: tuple[str, ...]) -> str | None:
    if written in names or written in _profiles():
        return written
    named = name_of(written)
    return named if named in names or Path(written).is_file() else None


def _profiles() -> Mapping[str, Path]:
    return shipped("devices")


def _require_limits(
    reader: Reader, document: Document, read: BudgetFile | None, found: Mapping[tuple[str, str], Budget]
) -> None:
    """A file that asks for nothing would let everything pass."""
    budgets = [read.budget, *found.values()] if read else []
    if (
        read
        and reader.clean
        and not any(budget.model_dump(exclude={"confidence"}, exclude_none=True) for budget in budgets)
    ):
        key = ("budget",) if "budget" in document.data else ()
        reader.wrong(key, "sets no limit", "add a [budget] with one, such as max_accuracy_drop = 0.01")
