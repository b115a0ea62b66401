"""A smaller network takes the model's place, for a training behind it to teach: narrower, shallower, or another one.

It has the model's input, outputs and preprocessing. `distill` (or `qat`) then trains it, with the original as teacher.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from toolkit.core import LayerChange, Model, PassContext, PassResult
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes import prune_changes
from toolkit.schema import Component
from toolkit.traits import SHAPE, Trait

if TYPE_CHECKING:
    from toolkit.engine.backbone import Head
    from toolkit.engine.students import Scaling

KINDS = ("width", "depth", "application", "source")
SOME = 4  # layers of a block that are named
LINEAR = ("logits", "embedding", "regression")  # heads that end in numbers as they are
Values = Annotated[tuple[float, ...], Field(min_length=1, max_length=4)]


class Student(Component):
    """Replaces the model by a smaller network, which a training behind it teaches.

    Give exactly one: `width`, `depth`, `application` or `source`.
    """

    takes: ClassVar[tuple[str, ...]] = ("keras",)
    needs: ClassVar[tuple[str, ...]] = ()

    width: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the model's channels that every layer keeps."""
    depth: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of its residual and repeated blocks, those whose input and output have one shape, that stay."""
    application: str | None = None
    """A network of keras.applications in its place, such as MobileNetV2, with the model's input and outputs."""
    source: Path | None = None
    """A Keras file of a network of one's own, for the same input and outputs."""
    alpha: Annotated[float, Field(gt=0, le=2)] | None = None
    """Of an application: its width multiplier, for the networks that have one (MobileNet, V2, V3)."""
    round_to: Annotated[int, Field(ge=1, le=256)] = 8
    """Of width: kept channels are a multiple of this; a smaller layer keeps all."""
    weights: Literal["own", "random", "imagenet"] | Path | None = None
    """own: those of the layers and channels that stay (width, depth) or of the file (source), the default there.
    random: drawn anew, the default of an application, which takes imagenet (downloaded) or a weights file, too."""
    scale: Values | None = None
    """Of source: what it takes of a pixel 0..255 is pixel * scale + offset; by default what the model takes."""
    offset: Values | None = None
    """See scale."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS[:-1])} and {KINDS[-1]}")
        for name, kind in (("alpha", "application"), ("scale", "source"), ("offset", "source")):
            if getattr(self, name) is not None and kind not in given:
                raise ValueError(f"{name} is of `{kind}`; leave it out")
        if "application" in given and self.weights == "own":
            raise ValueError('weights: an application has none of its own; give "random", "imagenet" or a file')
        if "application" not in given and (self.weights == "imagenet" or isinstance(self.weights, Path)):
            raise ValueError(f'weights: `{given[0]}` takes "own" or "random"')
        if "width" not in given and self.round_to != type(self).model_fields["round_to"].default:
            raise ValueError("round_to is of `width`; leave it out")  # a resolved recipe has every field
        if self.scale and any(value <= 0 for value in self.scale):
            raise ValueError("scale must be above 0")
        if len({len(values) for values in (self.scale, self.offset) if values and len(values) > 1}) > 1:
            raise ValueError("scale and offset have one value, or one for each channel")
        return self

    @property
    def makes(self) -> frozenset[Trait]:
        """Weights that nothing has trained, but for a file with its own."""
        return frozenset() if self.source is not None and self.weights != "random" else frozenset({"fresh"})

    @property
    def keeps(self) -> frozenset[Trait]:
        """What it leaves as earlier passes made it: a cut and a training, where the weights are the model's own."""
        changed = self.width is not None or self.depth is not None
        return SHAPE if changed and self.weights != "random" else frozenset()

    def run(self, model: Model, context: PassContext) -> PassResult:
        """The smaller network under the model's own contract.

        InputError: an input, a head or classes that differ, or no such network or file. UnsupportedError: a quantized
        model, several inputs or outputs, nothing that could go.
        """
        if model.quant.scheme != "float32":
            raise UnsupportedError("student", f"the model is {model.quant.scheme} already", "put it before quantize")
        ends = len(model.graph.inputs), len(model.graph.outputs)
        if ends != (1, 1):
            problem = f"needs one input and one output, got {ends[0]} inputs, {ends[1]} outputs"
            raise UnsupportedError("student", problem)
        try:
            graph, changes = self._made(model, context)
        except (InputError, UnsupportedError) as error:
            where = f"student.{error.where}" if error.where.split(" ")[0] in type(self).model_fields else error.where
            raise type(error)(where, error.problem, error.fix) from error
        _check_outputs(model, graph)
        total = prune_changes.totals(model.graph, graph, self._words())
        student = Model(model.kind, graph, model.signature, model.preprocessing, notes=model.notes)
        return PassResult(student, (total, *changes))

    def _made(self, model: Model, context: PassContext) -> tuple[Any, tuple[LayerChange, ...]]:
        """The network, and what is to be said of it."""
        if self.width is not None:
            return self._narrower(model, self.width, context.seed)
        if self.depth is not None:
            return self._shallower(model, self.depth, context.seed)
        if self.application is not None:
            return self._application(model, self.application, context)
        return self._file(model, Path(str(self.source)), context)

    def _narrower(self, model: Model, width: float, seed: int) -> tuple[Any, tuple[LayerChange, ...]]:
        from toolkit.engine.students import narrowed
        from toolkit.engine.widths import Rounding

        found = narrowed(model.graph, width, self.round_to)
        lines = prune_changes.layers(found.groups, found.widths, Rounding(self.round_to), even=True)
        graph, said = self._weighted(found.graph, seed, "those of the channels that stay, the largest by l2")
        return graph, (said, *lines)

    def _shallower(self, model: Model, depth: float, seed: int) -> tuple[Any, tuple[LayerChange, ...]]:
        from toolkit.engine.blocks import find_blocks, spread, without

        blocks = find_blocks(model.graph)
        if not blocks:
            problem = "no block of this model has an input of its output's shape and adds to it, or repeats another"
            raise UnsupportedError("depth", problem, "set width, application or source")
        stay = spread(len(blocks), round(depth * len(blocks)))
        gone = [block for index, block in enumerate(blocks) if index not in stay]
        if not gone:
            problem = f"drops none of {len(blocks)} blocks"
            raise InputError(f"depth = {depth:g}", problem, f"set at most {1 - 1 / len(blocks):.3g}")
        graph, said = self._weighted(without(model.graph, gone), seed, "those of the layers that stay")
        count = LayerChange("blocks of one shape", f"{len(blocks)}", f"{len(stay)}", "evenly spread")
        return graph, (count, said, *map(_dropped, gone))

    def _application(self, model: Model, name: str, context: PassContext) -> tuple[Any, tuple[LayerChange, ...]]:
        from toolkit.engine import backbone, students

        shape = model.signature.inputs[0].shape[1:]
        if len(shape) != 3 or None in shape:
            raise UnsupportedError("application", f"needs images of one size, the model takes {list(shape)}")
        head, sizes = _head(model), tuple(size or 1 for size in shape)
        if self.weights in (None, "random"):
            made = students.application(name, sizes, head, self.alpha, seed=context.seed)
            wanted = students.PIXELS if name.startswith(students.SCALE_INSIDE) else students.SIGNED
            return _placed(model, made, wanted, "random")
        if context.application is None:
            raise InputError("application", "nothing here can read its weights", "run it from a recipe")
        if self.alpha is not None:
            students.check_alpha(name)
        trained = context.application(name, str(self.weights), self.alpha)
        _check_colours(model, trained, name)
        where = f"keras.applications.{name}"
        features = backbone.features(trained.graph, (sizes[0], sizes[1], sizes[2]), where)
        made = students.with_new_head(features, head, seed=context.seed)
        return _placed(model, made, _scaling(trained), f"{self.weights}; the head's are random")

    def _file(self, model: Model, path: Path, context: PassContext) -> tuple[Any, tuple[LayerChange, ...]]:
        from toolkit.engine.students import Scaling

        if context.load is None:
            raise InputError("source", "nothing here can read a model file", "run it from a recipe")
        given = context.load(path)
        if given.kind != "keras":
            raise InputError("source", f"needs a Keras graph, {path.name} holds {given.kind}", "give a .keras file")
        if len(given.graph.inputs) != 1 or len(given.graph.outputs) != 1:
            raise UnsupportedError("source", f"{path.name} has not one input and one output")
        answering = _answering(model, given)
        own = _scaling(model)
        wanted = Scaling(self.scale or (1.0,), self.offset or (0.0,)) if self.scale or self.offset else own
        _check_channels(model, wanted)
        graph, said = self._weighted(answering, context.seed, f"those of {path.name}")
        placed, lines = _placed(model, graph, wanted, said.after)
        if given.head != model.head:
            lines = (*lines, LayerChange("its output", given.head, model.head, "as the model gives it"))
        return placed, (*lines, LayerChange("classes", "the model's", "taken to be the same", "a file names none"))

    def _weighted(self, graph: Any, seed: int, own: str) -> tuple[Any, LayerChange]:
        """The network with the weights asked for, and the line about them."""
        from toolkit.engine.students import fresh

        if self.weights == "random":
            return fresh(graph, seed), _weights("random")
        return graph, _weights(own)

    def _words(self) -> str:
        if self.width is not None:
            return f"asked for {self.width:.0%} of the channels"
        if self.depth is not None:
            return f"asked for {self.depth:.0%} of the blocks"
        if self.application is not None:
            return f"{self.application}{'' if self.alpha is None else f', alpha {self.alpha:g}'} in its place"
        return f"{Path(str(self.source)).name} in its place"


def _placed(model: Model, student: Any, wanted: Scaling, weights: str) -> tuple[Any, tuple[LayerChange, ...]]:
    """Another network on the model's input, which it gets as it wants it."""
    from toolkit.engine.students import between, in_place_of

    scaling = between(_scaling(model), wanted)
    graph = in_place_of(model.graph, student, scaling)
    return graph, (_weights(weights), *_rescaled(scaling))


def _rescaled(scaling: Scaling | None) -> Iterator[LayerChange]:
    from toolkit.engine.students import SCALING

    if scaling is not None:
        scale, offset = (", ".join(f"{value:.4g}" for value in values) for values in (scaling.scale, scaling.offset))
        reason = "the preprocessing contract stays; the student wants other values"
        yield LayerChange(SCALING, "no layer", f"input * {scale} + {offset}", reason)


def _scaling(model: Model) -> Scaling:
    from toolkit.engine.students import Scaling

    return Scaling(model.preprocessing.scale, model.preprocessing.offset)


def _weights(words: str) -> LayerChange:
    return LayerChange("weights", "trained", words, "let a training follow")


def _dropped(block: Any) -> LayerChange:
    names = ", ".join(block.layers[:SOME]) + (", ..." if len(block.layers) > SOME else "")
    what = "adds to its input" if block.residual else "repeats the layers before it"
    shape = "x".join(str(size) for size in block.shape[1:])
    return LayerChange(names, f"{len(block.layers)} layers", "dropped", f"{what}, {shape}")


def _head(model: Model) -> Head:
    from toolkit.engine.backbone import Head

    return Head(prod(size or 1 for size in model.signature.outputs[0].shape[1:]), model.head)


def _answering(model: Model, given: Model) -> Any:
    """The user's network with outputs that mean what the model's do: logits, or what is made of them."""
    from toolkit.engine.students import ending_in

    before, after = (("linear" if one.head in LINEAR else one.head) for one in (given, model))
    if before == after:
        return given.graph
    graph = None
    if "linear" in (before, after) and "embedding" not in (given.head, model.head) and model.head != "regression":
        graph = ending_in(given.graph, before, after)
    if graph is None:
        problem = f"its output is {given.head}, the model's {model.head}"
        raise InputError("source", problem, f"save it with an output that is {after}")
    return graph


def _check_outputs(model: Model, graph: Any) -> None:
    """Raise where the student gives another number of outputs."""
    ours, theirs = (tuple(end.shape[1:]) for end in (model.graph.outputs[0], graph.outputs[0]))
    if ours != theirs:
        problem = f"gives outputs of {list(theirs)}, the model of {list(ours)}"
        raise InputError("student", problem, "give one with as many classes")


def _check_channels(model: Model, wanted: Scaling) -> None:
    """Raise where `scale` or `offset` has a value for each of some other number of channels."""
    channels = model.signature.inputs[0].shape[-1]
    for name in ("scale", "offset"):
        count = len(getattr(wanted, name))
        if count not in (1, channels):
            raise InputError(name, f"has {count} values, the model's images {channels} channels", "give one for each")


def _check_colours(model: Model, trained: Model, name: str) -> None:
    """Raise where weights were trained on channels in another order: no scaling puts that right."""
    ours, theirs = model.preprocessing.color, trained.preprocessing.color
    if ours != theirs:
        problem = f"the weights of {name} were trained on {theirs} images, the model takes {ours}"
        raise UnsupportedError("application", problem, 'set weights = "random", or name another network')
