"""[train] of a recipe: the network to make and how to train it. Names, bounds, and what cannot stand together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from toolkit.schema import Component

APPLICATIONS = "keras.applications."  # in front of a network's name, where the backbone is no file
SMALL = "small"
Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=10)]
Epochs = Annotated[int, Field(ge=1, le=10_000)]


class AugmentSection(Component):
    """[train.augment]: random views of the training images, as Keras layers that the saved model has not."""

    flip: Literal["none", "horizontal", "vertical", "horizontal_and_vertical"] = "none"
    """Mirrors every second image; wrong for digits and text."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest turn either way, in degrees."""
    zoom: Share = 0.0
    """Largest change of size either way, as a share."""
    shift: Share = 0.0
    """Largest move along each side, as a share of it."""
    shear: Share = 0.0
    """Largest slant, as a share."""
    brightness: Share = 0.0
    """Largest change of brightness, as a share of white."""
    contrast: Share = 0.0
    """Largest change of contrast, as a share."""
    saturation: Share = 0.0
    """Largest change of saturation, as a share; not for gray images."""
    hue: Share = 0.0
    """Largest turn of the hue, as a share of half the circle; not for gray images."""
    fill: Literal["reflect", "nearest", "wrap", "constant"] = "reflect"
    """What comes in at the edges: the image mirrored, its border, its other side, or zero."""


class FeaturesSection(Component):
    """[train.features]: the first phase of transfer learning; the backbone stays as it is, the head learns."""

    epochs: Epochs = 20
    """Passes over the train split."""
    learning_rate: Rate = 1e-3
    """Largest step size."""


class FinetuneSection(Component):
    """[train.finetune]: the second phase; the backbone's last layers learn too, at a lower rate."""

    epochs: Annotated[int, Field(ge=0, le=10_000)] = 10
    """Passes over the train split; 0 leaves this phase out."""
    learning_rate: Rate = 1e-4
    """Largest step size, well below that of the first phase."""
    layers: Annotated[int, Field(ge=1, le=10_000)] = 20
    """How many of the backbone's last layers with weights learn, BatchNormalization not counted: it stays as it is."""


class TrainSection(Component):
    """[train]: makes the trained model that a recipe starts from, in place of [model] source."""

    needs: ClassVar[tuple[str, ...]] = ("train",)

    backbone: str = SMALL
    """"small" (a CNN from scratch), a trained model's file, or keras.applications.NAME."""
    weights: str | None = None
    """Of keras.applications: "imagenet" (downloaded), a file with the whole network's weights, or "none" (random)."""
    input_size: tuple[Annotated[int, Field(ge=4, le=8192)], Annotated[int, Field(ge=4, le=8192)]] | None = None
    """Height and width of the images that the model takes, in pixels; by default those of data.preprocess.size."""
    width: Annotated[int, Field(ge=1, le=4096)] = 32
    """Channels of the small CNN's first block; each next block has twice as many."""
    depth: Annotated[int, Field(ge=1, le=8)] = 3
    """Blocks of the small CNN."""
    head_dropout: Share = 0.2
    """Share of the features that the head drops by chance in training."""
    head_l2: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of the L2 penalty on the head's kernel."""
    label_smoothing: Share = 0.0
    """Share of each label's certainty that all classes get alike."""
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(ge=0)]] = "none"
    """"balanced" gives every class the same say; a table gives weights by class name, 1 where it has none."""
    errors: Literal["squared", "absolute"] = "squared"
    """What the loss of a regression is the mean of."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    """Images in one step."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Adam, Adam with decoupled weight decay, or gradient descent with Nesterov momentum."""
    momentum: Share = 0.9
    """Of sgd."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.004
    """Of adamw."""
    schedule: Literal["cosine", "exponential", "step", "constant"] = "cosine"
    """How the learning rate falls in each phase: to 0 along a half cosine, exponentially, by steps at 50% and 75%."""
    decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the rate at the end (exponential, by default 0.01) or after each step (step, by default 0.1)."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Epochs at the start of each phase in which the rate rises from 0."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better selection score before a phase stops; 0 goes through all."""
    mixed_precision: Literal["auto"] | bool = "auto"
    """Compute in 16 bits where that is safe: auto where a GPU is; true asks for one. The model is saved in float32."""
    epochs: Epochs = 30
    """Passes over the train split, from scratch; with a pretrained backbone the two phases have their own."""
    learning_rate: Rate = 1e-3
    """Largest step size, from scratch."""
    features: FeaturesSection = FeaturesSection()
    """The first phase of transfer learning."""
    finetune: FinetuneSection = FinetuneSection()
    """The second phase of transfer learning."""
    augment: AugmentSection = AugmentSection()
    """Random views of the training images."""

    @model_validator(mode="after")
    def _stand_together(self) -> TrainSection:
        if self.application and self.weights is None:
            raise ValueError('keras.applications needs weights: "imagenet", a weights file, or "none"')
        if not self.application and self.weights not in (None, "none" if self.backbone == SMALL else None):
            raise ValueError("weights are for keras.applications alone; a file's are in the file")
        given = [name for name in self._idle() if name in self.model_fields_set]
        if given:
            how = "a pretrained backbone has features, finetune" if self.pretrained else "from scratch has epochs"
            raise ValueError(f"{', '.join(given)} says nothing here; {how}")
        if self.decay is not None and self.schedule not in ("exponential", "step"):
            raise ValueError(f"decay says nothing to the {self.schedule} schedule")
        return self

    def _idle(self) -> tuple[str, ...]:
        """Fields that say nothing to this kind of backbone."""
        phases = ("epochs", "learning_rate") if self.pretrained else ("features", "finetune")
        return phases if self.backbone == SMALL else (*phases, "width", "depth")

    def resolved(self) -> dict[str, Any]:
        """Every field that counts, JSON-able."""
        return self.model_dump(mode="json", exclude=set(self._idle()))

    @property
    def application(self) -> str | None:
        """The network of keras.applications that is the backbone, or None."""
        return self.backbone.removeprefix(APPLICATIONS) if self.backbone.startswith(APPLICATIONS) else None

    @property
    def pretrained(self) -> bool:
        """Whether the backbone comes with weights."""
        return self.backbone != SMALL and self.weights != "none"

    @property
    def files(self) -> tuple[Path, ...]:
        """The files it starts from."""
        backbone = [] if self.application or self.backbone == SMALL else [Path(self.backbone)]
        return (*backbone, *([] if self.weights in (None, "imagenet", "none") else [Path(str(self.weights))]))

    def located(self, path: Callable[[str], Path]) -> TrainSection:
        """The same with whole paths."""
        update = {}
        if not self.application and self.backbone != SMALL:
            update["backbone"] = str(path(self.backbone))
        if self.weights not in (None, "imagenet", "none"):
            update["weights"] = str(path(str(self.weights)))
        return self.model_copy(update=update)
