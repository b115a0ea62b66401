"""The shape of a recipe file: its sections, their keys, types, bounds and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from toolkit.core import Budget, MeasureSpec
from toolkit.devices import Name
from toolkit.schema import Component
from toolkit.training.section import TrainSection

Table = str | dict[str, Any]  # {use = "tflite", ...}, or "tflite" for short
# the other keys of [data] are the dataset's own
DATA_KEYS = ("use", "preprocess", "splits", "held_out", "unlabelled", "max_corrupt", "verify")
APPLICATIONS = "keras.applications."  # in front of a network's name, where [model] source is no file


class ModelSection(Component):
    """[model]: the trained model to start from."""

    source: Path | None = None
    """The model file or folder, relative to the recipe, or keras.applications.NAME; `--model` replaces it."""
    weights: str | None = None
    """For keras.applications: "imagenet" (downloaded), or a weights file relative to the recipe."""
    head: Literal["auto", "logits", "softmax", "sigmoid", "sigmoids", "embedding", "regression"] = "auto"
    """What the model's output means; auto looks at its last activation."""
    input_shape: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    """Height and width in pixels, where the model leaves them open."""
    layout: Literal["auto", "NHWC", "NCHW"] = "auto"
    """Where the channels of its image input stand, for .onnx, .tflite and SavedModel; auto looks at its shape."""
    classes: tuple[str, ...] = ()
    """The model's class names in the order of its outputs; the data must list the same."""
    classes_file: Path | None = None
    """The same from a file: a CSV file with columns class_index and name, or one name a line."""

    @property
    def application(self) -> str | None:
        """The network of keras.applications that is meant, or None where the source is a file."""
        text = str(self.source or "")
        return text.removeprefix(APPLICATIONS) if text.startswith(APPLICATIONS) else None

    def files(self) -> tuple[Path, ...]:
        """What is read of the disk: the source, or the weights of a named network."""
        if self.application is None:
            return (self.source,) if self.source else ()
        return (Path(self.weights),) if self.weights and self.weights != "imagenet" else ()


class VariantSection(Component):
    """[[variants]]: one branch from the trunk and the files it leaves as."""

    name: Name
    """Short name; the files are named after it."""
    description: str = ""
    """What it is for."""
    passes: tuple[Table, ...] = ()
    """Passes after the trunk's: tables with `use` and parameters."""
    export: Annotated[tuple[Table, ...], Field(min_length=1)]
    """Exporters: names, or tables with `use` and parameters."""


class TargetSection(Component):
    """[[targets]]: a device, and what must hold on it."""

    device: str
    """A shipped device profile's name, or a path relative to the recipe."""
    variants: tuple[str, ...] = ()
    """Names of the variants it is meant for; all of them by default."""
    budget: Budget = Budget()
    """Limits that replace those of the recipe's [budget] here."""
    measure: MeasureSpec = MeasureSpec()
    """Settings that replace those of the recipe's [measure] here."""


class DiagnosisSection(Component):
    """[diagnosis]: look into every quantized file, not only into those that fail a gate on their answers."""

    sensitivity: bool = True
    """Also simulate each layer quantized alone, and all but it."""
    images: Annotated[int, Field(ge=1, le=1000)] = 16
    """How many, from the selection split, else from calibration."""
    calibration: bool = True
    """Also check each calibration: with half of its images, and against others of the selection split, else train."""


class RepairSection(Component):
    """[repair]: what may be changed of a static quantize pass whose files do not pass on the selection split."""

    rungs: Annotated[
        tuple[Literal["calibration", "equalize_bias", "mixed", "adaround", "qat"], ...], Field(min_length=1)
    ] = ("calibration", "equalize_bias", "mixed", "adaround", "qat")
    """What is tried, in this order, until the first PASS."""
    max_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """No further trial is begun after so long."""
    qat: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the `qat` pass, for its rung, such as { epochs = 3 }."""


class CardSection(Component):
    """[card]: what the model card says that no program can know; "unknown" where it is not stated."""

    authors: str = ""
    """Who made the model, and whom to ask."""
    license: str = ""
    """Licence of the trained model, such as an SPDX identifier."""
    data_license: str = ""
    """Licence or terms of the data."""
    intended_use: str = ""
    """What it is meant for, and what not."""
    limits: str = ""
    """Known limits beyond what was measured."""


class ReportSection(Component):
    """[report]: what the report shows."""

    images: Annotated[int, Field(ge=0, le=100)] = 12
    """Test images whose decision changed, as thumbnails; 0 leaves images out."""
    stages: bool = True
    """Whether each stage's model is written as a float32 file too, to weigh it and time it on the first device."""


class RecipeFile(Component):
    """A recipe as it is written."""

    extends: str = ""
    """A shipped recipe's name, or a path relative to this file: its keys hold where this file has none."""
    name: Name = ""
    """Name of its runs; the file's own name by default."""
    description: str = ""
    """What it is for."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of everything random."""
    model: ModelSection = ModelSection()
    """The trained model to start from."""
    train: TrainSection | None = None
    """How to make the trained model, in place of `model.source`."""
    data: dict[str, Any] = Field(default_factory=dict)
    """The dataset (`use`, or a `path` that shows it, and its parameters), `preprocess`, `splits`, `held_out`,
    `unlabelled`, `max_corrupt` and `verify`."""
    passes: tuple[Table, ...] = ()
    """The trunk: passes every variant shares."""
    variants: tuple[VariantSection, ...] = ()
    """Branches from the trunk."""
    export: tuple[Table, ...] = ()
    """Exporters of a recipe without variants; short for one variant called "main"."""
    targets: tuple[TargetSection, ...] = ()
    """Devices and their limits; this machine by default."""
    metrics: tuple[Table, ...] = ()
    """Metrics beside those of the model's head: names, or tables with `use` and parameters."""
    budget: Budget = Budget()
    """What must hold of every artifact on every target."""
    measure: MeasureSpec = MeasureSpec()
    """How latency is measured, where a target does not say; replaces the device profile's settings."""
    repair: RepairSection | None = None
    """What to try where a quantized variant does not pass; it chooses on the selection split."""
    diagnosis: DiagnosisSection | None = None
    """What to look for inside every quantized file; files that fail a gate on their answers are looked into anyway."""
    report: ReportSection | None = None
    """What the report shows."""
    card: CardSection | None = None
    """What the model card of a bundle says of authors, licences and use."""
