"""What `distill` can ask of a teacher beside its outputs: tables of a recipe, and their checks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from toolkit.core import LayerChange, Model
from toolkit.errors import InputError, UnsupportedError
from toolkit.schema import Component

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.engine import hints

Layers = Literal["auto"] | Annotated[dict[str, str], Field(min_length=1)]
KEYS = ("hints", "attention", "relational")


class Hints(Component):
    """Intermediate features like the teacher's (FitNets, arXiv:1412.6550), through 1x1 projections where widths differ;
    they learn along and are dropped afterwards."""

    layers: Layers = "auto"
    """{ student_layer = "teacher_layer" }; auto: the last activation of each resolution."""
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Of the squared error, which is in units of the teacher's own mean square, the mean over layers."""


class Attention(Component):
    """Looking where the teacher looks: maps of the squares over channels (attention transfer, arXiv:1612.03928)."""

    layers: Layers = "auto"
    """{ student_layer = "teacher_layer" }; auto: the last activation of each resolution."""
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1000.0
    """Of the squared error of maps of length 1, the mean over layers; 1000 as in the paper."""


class Relational(Component):
    """Images of a batch lying to each other as they do for the teacher (RKD, arXiv:1904.05068)."""

    on: Literal["features", "logits"] = "features"
    """What lies: what the last layer with weights reads (before dropout), or the logits, as files give them."""
    distance: Annotated[float, Field(ge=0, le=1e6)] = 25.0
    """Weight of their distances, in units of the mean one; 0 leaves them out."""
    angle: Annotated[float, Field(ge=0, le=1e6)] = 50.0
    """Weight of the angles of any three; their cost grows with the cube of batch_size. 0 leaves them out."""

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.distance and not self.angle:
            raise ValueError("distance and angle are both 0; leave the table out")
        return self


def beside(hint: Hints | None, attention: Attention | None, relational: Relational | None) -> hints.Beside:
    """The same as the training engine takes it."""
    from toolkit.engine import hints

    return hints.Beside(
        hints.Hints(_pairs(hint.layers), hint.weight) if hint else None,
        hints.Attention(_pairs(attention.layers), attention.weight) if attention else None,
        hints.Relational(**relational.model_dump()) if relational else None,
    )


def check_teachers(teachers: Sequence[str | Path]) -> None:
    """Raise ValueError for teachers that show their outputs alone, as far as their names tell."""
    fix = 'leave out hints and attention, and set relational.on = "logits", or name one Keras teacher'
    if len(teachers) > 1:
        raise ValueError(
            f"hints, attention and relational look into the layers of one teacher, got {len(teachers)}; {fix}"
        )
    if Path(teachers[0]).suffix.lower() in (".onnx", ".tflite"):
        raise ValueError(f"{teachers[0]} shows its outputs alone; {fix}")


def check(student: Model, teachers: Sequence[Model], asked: hints.Beside) -> None:
    """Raise, before anything is read or trained, for layers that are not there or cannot be compared."""
    from toolkit.engine import hints

    if not asked.looks_inside:
        return
    if teachers[0].kind != "keras":
        part = next(key for key in KEYS if getattr(asked, key))
        fix = 'set relational.on = "logits"' if part == "relational" else "leave it out, or name one Keras teacher"
        raise UnsupportedError(part, f"a teacher of kind {teachers[0].kind} shows its outputs alone", fix)
    hints.match(student.graph, teachers[0].graph, asked)


def check_apart(prepared: Any, hint: Hints | None, attention: Attention | None) -> None:
    """Raise for layers that mean something else, or are gone, in a graph whose BatchNormalization is in the weights."""
    left = {layer.name: layer for layer in prepared.layers}
    for part, table in (("hints", hint), ("attention", attention)):
        for name in table.layers if table is not None and not isinstance(table.layers, str) else ():
            if name not in left or hasattr(left[name], "kernel"):
                problem = f"{name!r} has weights, which are trained with what is behind them folded in or apart"
                if name not in left:
                    problem = f"{name!r} is folded into the layers beside it before they are trained"
                fix = 'name the activation or addition behind it, or leave it to "auto"'
                raise InputError(f"{part}.layers", problem, fix)


@contextmanager
def named(called: str) -> Iterator[None]:
    """What is wrong with such a table, with the name of the pass in front."""
    try:
        yield
    except (InputError, UnsupportedError) as error:
        if error.where.split(".")[0] not in KEYS:
            raise
        raise type(error)(f"{called}.{error.where}", error.problem, error.fix) from error


def compared(matches: Sequence[hints.Match]) -> tuple[LayerChange, ...]:
    """A line for each layer that learned beside the outputs."""
    from toolkit.engine.hints import words

    return tuple(LayerChange(one.student.layer, "taught through the outputs alone", words(one)) for one in matches)


def _pairs(layers: Layers) -> hints.Layers:
    return () if isinstance(layers, str) else tuple(layers.items())
