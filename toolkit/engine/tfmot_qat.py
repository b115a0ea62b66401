"""Quantization-aware training by tensorflow-model-optimization (TFMOT): its own default 8-bit scheme.

Its training runs in a process of its own (`python -m toolkit.tfmot`), on the model carried to Keras 2. What comes back
is what every exporter takes: the prepared Keras 3 graph, weights on their grid, the ranges that were learned by the
names of its layers. TFMOT has one scale for all channels of a depthwise or dense kernel; the exporters write one for
each output channel, so such a kernel is rounded once more, to the finer grid of each channel; so is one that it left in
float (of a convolution whose ReLU is a layer of its own).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from keras import layers
from numpy.typing import NDArray

from toolkit.engine import tfmot_process
from toolkit.engine.graph import Call, Graph, walk
from toolkit.engine.prepare import WEIGHTED, prepare, split_weights
from toolkit.engine.qat import find_ranges
from toolkit.engine.simulate import on_grid, simulate, weight_scales
from toolkit.engine.stored import Range
from toolkit.engine.surgery import rebuild
from toolkit.engine.teaching import Teaching
from toolkit.engine.train import Evaluate, TrainResult
from toolkit.errors import StageError, UnsupportedError

Array = NDArray[Any]

# kinds of layer that its default 8-bit registry has (tfmot 0.8.1, default_8bit_quantize_registry and _transforms)
TAKEN = (
    *("InputLayer", "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense", "BatchNormalization", "ReLU", "Softmax"),
    *("Activation", "Add", "Concatenate", "AveragePooling2D", "MaxPooling2D", "GlobalAveragePooling2D", "Dropout"),
    *("GlobalMaxPooling2D", "SpatialDropout2D", "Flatten", "Reshape", "Permute", "ZeroPadding2D", "Cropping2D"),
    *("UpSampling2D", "Conv2DTranspose"),
)
FUNCTIONS = ("linear", "relu", "softmax", "sigmoid", "tanh", "silu", "swish")  # its QuantizeAwareActivation's
BEFORE_NORM = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense")
MOST_JOINED = 6  # inputs of a Concatenate that it has a pattern for
OBSERVED = 512  # images whose values set the ranges at the start, and those of tensors that TFMOT has none for
MOVED = 1e-3  # of a step: more than float32 arithmetic
WHERE = 'qat.backend "tfmot"'


@dataclass(frozen=True)
class Refusal:
    """A layer that TFMOT does not take, and why."""

    layer: str
    kind: str
    why: str

    def __str__(self) -> str:
        return f"{self.layer!r} ({self.kind}): {self.why}"


@dataclass(frozen=True)
class Brought:
    """graph: prepared, weights on their grid. ranges: of its tensors, by their names in Statistics.

    learned: names of the ranges that TFMOT trained; the others are those of some images. regridded: layers whose
    weights were rounded once more.
    """

    graph: Any
    ranges: Mapping[str, Range]
    learned: frozenset[str]
    regridded: tuple[str, ...]


def refusals(model: Any) -> tuple[Refusal, ...]:
    """The layers of a flat Keras 3 model that TFMOT refuses: asked before any work."""
    graph = walk(model)
    found = []
    calls: dict[int, int] = {}
    for call in graph.calls:
        calls[id(call.layer)] = calls.get(id(call.layer), 0) + 1
    for call in graph.calls:
        why = _refusal(call, graph, calls[id(call.layer)])
        if why:
            found.append(Refusal(call.name, call.kind, why))
    return tuple(dict.fromkeys(found))


def train_with_tfmot(
    model: Any,
    images: Array,
    labels: Array,
    *,
    how: Teaching,
    original: Any | None = None,
    evaluate: Evaluate | None = None,
    told: Callable[[int, float], None] = lambda number, loss: None,
) -> tuple[Brought, TrainResult]:
    """Quantization-aware training of a flat Keras 3 model, which stays as it is; what came back, and how it went.

    original: the float model that teaches (share `how.target.alpha`), a graph or a `Teacher`; None to learn from labels
    alone. evaluate: a score to be large, of the file simulated; the best epoch is kept, the later one of equals. told:
    number and mean loss of each epoch. Raises UnsupportedError that names the layers TFMOT refuses, UnavailableError
    where it is not installed, StageError where its process ends without a result.
    """
    check(model, how)
    with tempfile.TemporaryDirectory(prefix="edgekit-tfmot-") as name:
        folder = Path(name)
        facts = {"task": "qat", "observed": OBSERVED}
        tfmot_process.write_job(folder, model, images, labels, how=how, original=original, facts=facts)
        losses = tfmot_process.trained(folder, told, WHERE)
        return _best(folder, model, np.asarray(images[:OBSERVED]), losses, how=how, evaluate=evaluate, of=len(images))


def brought_back(model: Any, arrays: Mapping[str, Array], images: Array) -> Brought:
    """What the process learned ("weight/LAYER/i", "range/LAYER") as a prepared graph and ranges by layer."""
    trained = rebuild(model, {})
    for layer in trained.layers:
        if layer.weights:
            layer.set_weights(tfmot_process.weights_of(layer, arrays))
    graph = prepare(trained).graph
    if graph is trained:
        graph = rebuild(trained, {})
    regridded = tuple(layer.name for layer in graph.layers if isinstance(layer, WEIGHTED) and round_to_grid(layer))
    names = names_in_prepared(trained, graph)
    learned: dict[str, Range] = {}
    for key, value in arrays.items():
        kind, _, place = key.partition("/")
        if kind == "range" and (own := _place(place, graph, names)):
            learned[own] = (float(value[0]), float(value[1]))
    observed = find_ranges(graph, {graph.inputs[0].name: images})
    return Brought(graph, {**observed, **learned}, frozenset(learned), regridded)


def round_to_grid(layer: Any) -> bool:
    """Put a kernel on the grid of max|w| / 127 of each output channel; whether that moved it by more than rounding."""
    kernel, bias = split_weights(layer)
    scales = weight_scales(layer, kernel)
    rounded = on_grid(kernel, scales)
    layer.set_weights([rounded] if bias is None else [rounded, bias])
    return bool((np.abs(kernel - rounded) / scales).max() > MOVED)


def names_in_prepared(model: Any, prepared: Any) -> dict[str, str]:
    """Flat layer -> layer of the prepared graph that gives the same tensor."""
    before, after = walk(model), walk(prepared)
    calls = {call.name: call for call in after.calls}
    names: dict[str, str] = {}
    for call in before.calls:
        if call.name not in calls:  # a BatchNormalization that went into the weights before it
            names[call.name] = names[before.calls[call.inputs[0].call].name]
            continue
        found = calls[call.name]
        if isinstance(call.layer, (*WEIGHTED, layers.SeparableConv2D)) and _function(call.layer) != "linear":
            found = after.calls[max(found.consumers)]  # the activation behind it; of swish the product
        names[call.name] = found.name
    return names


# ---------------------------------------------------------------- before any work


def _refusal(call: Call, graph: Graph, uses: int) -> str:
    """Why TFMOT does not take this call's layer, or ""."""
    if not isinstance(call.layer, layers.Layer):
        return "is a function, not a layer"
    if call.kind not in TAKEN:
        return "its default 8-bit scheme has no such layer"
    if uses > 1:
        return "is used more than once"
    if (name := _function(call.layer)) not in FUNCTIONS:
        return f"its activation {name} is not one it quantizes"
    if call.kind == "Concatenate" and len(call.inputs) > MOST_JOINED:
        return f"joins {len(call.inputs)} tensors, it has a pattern for {MOST_JOINED} at most"
    if getattr(call.layer, "data_format", "channels_last") != "channels_last":
        return "keeps channels first"
    if call.kind == "BatchNormalization":
        before = graph.calls[call.inputs[0].call]
        if before.kind not in BEFORE_NORM or before.consumers != (call.index,) or _function(before.layer) != "linear":
            return "BatchNormalization stands not right behind a convolution or Dense of its own"
    return ""


def _function(layer: Any) -> str:
    return str(getattr(getattr(layer, "activation", None), "__name__", "linear"))


def check(model: Any, how: Teaching) -> None:
    """Raise what `train_with_tfmot` would, as far as it can be said before any work."""
    refused = refusals(model)
    if refused:
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        text = "; ".join(str(item) for item in refused[:3])
        raise UnsupportedError(WHERE, f"TFMOT refuses {text}{more}", 'set backend = "native"')
    tfmot_process.check(model, how, WHERE)


# ---------------------------------------------------------------- the way back


def _best(
    folder: Path,
    model: Any,
    images: Array,
    losses: tuple[float, ...],
    *,
    how: Teaching,
    evaluate: Evaluate | None,
    of: int,
) -> tuple[Brought, TrainResult]:
    """The epoch that scores best, as a file would compute it; without a score the last."""
    scores: list[float] = []
    best, kept = len(losses), None
    for number in range(len(losses) + 1) if evaluate else (best,):
        with np.load(folder / f"{number}.npz") as arrays:
            brought = brought_back(model, dict(arrays), images)
        if evaluate is None:
            kept = brought
            continue
        scores.append(float(evaluate(simulate(brought.graph, brought.ranges))))
        if scores[-1] >= max(scores):
            best, kept = number, brought
    if kept is None:
        raise StageError(WHERE, "no epoch has a score that is a number")
    curves = {"loss": losses}
    if scores:
        curves[how.judgement] = tuple(scores[1:])
    before = scores[0] if scores else None
    return kept, TrainResult(kept.graph, best, before, of // min(how.batch_size, of), curves)


def _place(name: str, graph: Any, names: Mapping[str, str]) -> str:
    """The prepared layer that a range of the process belongs to; "" where another range is that tensor's."""
    own, _, before = name.partition(":")
    if not before:
        return names.get(own, own)
    return own if isinstance(graph.get_layer(own), WEIGHTED) else ""  # an Activation reads what another layer gives
