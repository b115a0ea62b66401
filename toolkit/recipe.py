"""Recipes: what to do to a model, and what must hold of the files that come out.

A recipe is a trunk (a list of passes) and variants that branch from it, each with passes and exports of its own, judged
on the targets' devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.core import Budget, MeasureSpec
from toolkit.datasets.census import CensusSpec
from toolkit.datasets.preprocess import PreprocessSpec
from toolkit.datasets.splits import SplitSpec
from toolkit.devices import DeviceProfile
from toolkit.documents import Document, Key
from toolkit.errors import InputError
from toolkit.recipe_file import CardSection, DiagnosisSection, ModelSection, RepairSection, ReportSection
from toolkit.schema import SCHEMA
from toolkit.training.section import TrainSection


@dataclass(frozen=True)
class Step:
    """A pass, exporter or dataset with its parameters. key: where it stands in the recipe."""

    use: str
    component: Any
    key: Key

    def resolved(self) -> dict[str, Any]:
        """Its name and every parameter, JSON-able."""
        return {"use": self.use, **self.component.model_dump(mode="json")}


@dataclass(frozen=True)
class DataSpec:
    """The data. records: where images come from; held_out: where selection and test are drawn from instead.

    unlabelled: where more images to train on come from.
    """

    records: Step | None
    preprocess: PreprocessSpec
    splits: SplitSpec
    held_out: Step | None = None
    census: CensusSpec = CensusSpec()
    unlabelled: Step | None = None

    def resolved(self) -> dict[str, Any]:
        """JSON-able, every default filled in."""
        return {
            **(self.records.resolved() if self.records else {}),
            "preprocess": self.preprocess.model_dump(mode="json"),
            "splits": self.splits.model_dump(mode="json"),
            "held_out": self.held_out.resolved() if self.held_out else None,
            **({"unlabelled": self.unlabelled.resolved()} if self.unlabelled else {}),
            **self.census.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class Variant:
    """One branch: passes after the trunk's, then a file for each exporter."""

    name: str
    passes: tuple[Step, ...]
    exports: tuple[Step, ...]
    description: str = ""


@dataclass(frozen=True)
class Target:
    """A device and what must hold on it: the recipe's budget and settings with the target's own merged over them."""

    device: str  # a shipped name or a whole path
    profile: DeviceProfile
    variants: tuple[str, ...]
    budget: Budget
    measure: MeasureSpec


@dataclass(frozen=True)
class Recipe:
    """A recipe, resolved. text: the file's bytes, for the run's copy; base: the folder relative paths start from."""

    name: str
    description: str
    seed: int
    model: ModelSection
    data: DataSpec
    passes: tuple[Step, ...]
    variants: tuple[Variant, ...]
    targets: tuple[Target, ...]
    budget: Budget
    measure: MeasureSpec
    base: Path
    text: bytes
    document: Document
    allow_code: tuple[str, ...] = ()  # modules whose code may run; the command line's to say, never the recipe's
    metrics: tuple[Step, ...] = ()
    train: TrainSection | None = None
    diagnosis: DiagnosisSection | None = None
    repair: RepairSection | None = None
    card: CardSection | None = None
    report: ReportSection | None = None

    @property
    def bases(self) -> tuple[tuple[str, bytes], ...]:
        """Name and bytes of each file that it extends, the nearest first, for the run's copies."""
        return tuple((Path(base.name).name, base.text) for base in self.document.bases)

    def where(self, *key: str | int) -> str:
        """`file:line: key` for messages about one of its keys."""
        return self.document.where(key)

    def variant(self, name: str) -> Variant:
        """The variant called `name`."""
        return next(variant for variant in self.variants if variant.name == name)

    def require_runnable(self) -> None:
        """Raise InputError when no model or no data is given, or the model is not there."""
        if self.train is not None:
            self._require_backbone(self.train)
        elif self.model.source is None:
            raise InputError("recipe", "model.source is not given", "give --model PATH")
        for path in self.model.files():
            if not path.exists():
                key, fix = (
                    ("weights", "name a weights file") if self.model.application else ("source", "give --model PATH")
                )
                raise InputError(self.where("model", key), f"no such file, got {str(path)!r}", fix)
        if self.data.records is None:
            raise InputError("recipe", "data.path is not given", "give --data PATH")

    def _require_backbone(self, train: TrainSection) -> None:
        for path in train.files:
            if not path.exists():
                key = "weights" if str(path) == train.weights else "backbone"
                fix = f"give --set train.{key}=PATH"
                raise InputError(self.where("train", key), f"no such file, got {str(path)!r}", fix)

    def resolved(self) -> dict[str, Any]:
        """The whole recipe as it will run, JSON-able: every default, override and path filled in."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "description": self.description,
            "seed": self.seed,
            "model": self.model.model_dump(mode="json"),
            **({"train": self.train.resolved()} if self.train else {}),
            "data": self.data.resolved(),
            "passes": [step.resolved() for step in self.passes],
            "variants": [
                {
                    "name": variant.name,
                    "description": variant.description,
                    "passes": [step.resolved() for step in variant.passes],
                    "export": [step.resolved() for step in variant.exports],
                }
                for variant in self.variants
            ],
            "targets": [
                {
                    "device": target.device,
                    "variants": list(target.variants),
                    "budget": target.budget.model_dump(mode="json"),
                    "measure": target.measure.model_dump(mode="json"),
                }
                for target in self.targets
            ],
            "metrics": [step.resolved() for step in self.metrics],
            "budget": self.budget.model_dump(mode="json", exclude_unset=True),
            "measure": self.measure.model_dump(mode="json", exclude_unset=True),
            **({"repair": self.repair.model_dump(mode="json")} if self.repair else {}),
            **({"diagnosis": self.diagnosis.model_dump(mode="json")} if self.diagnosis else {}),
            **({"report": self.report.model_dump(mode="json")} if self.report else {}),
            **({"card": self.card.model_dump(mode="json")} if self.card else {}),
        }
