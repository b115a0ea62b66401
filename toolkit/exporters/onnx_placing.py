"""Which operators of an .onnx graph are quantized, and which of its tensors get a QuantizeLinear, in each flavour.

asymmetric: what ONNX Runtime has integer kernels for on a CPU, inputs and outputs both. symmetric: what TensorRT's
"Working with Quantized Types" recommends: the inputs of operators with weights, and of an Add the one that no
convolution computes for it alone, which TensorRT then fuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.core import QuantSpec, Scheme
from toolkit.errors import UnsupportedError
from toolkit.exporters import tensorrt_placing
from toolkit.exporters.onnx_file import File
from toolkit.exporters.onnx_matching import floats
from toolkit.exporters.onnx_scan import MOVING, WEIGHTED, Locate, layer_of

# Integer kernels of ONNX Runtime's CPU provider for the Q/DQ form (its optimized graphs, version 1.31). ConvTranspose
# has none there and is computed in float between int8 tensors.
COMPUTING = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "AveragePool", "GlobalAveragePool", "Sigmoid",
             "LeakyRelu", "Concat", "Relu", "Clip")  # fmt: skip
FOLLOWING = (*MOVING, "Relu", "Clip")
LAYER_SCHEMES: tuple[Scheme, ...] = ("float32", "weight_int8", "int8")


@dataclass(frozen=True)
class Placement:
    """Names of the nodes that are quantized, of those whose weights alone are, and of those that cannot be.

    left: in words, what int8 was asked for and there is no integer kernel for. spared: what is left out because int8
    would not make it faster.
    """

    full: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()


def place(
    file: File, quant: QuantSpec, matched: Mapping[str, tuple[str, ...]], locate: Locate, *, tensorrt: bool = False
) -> Placement:
    """What is quantized how; raises UnsupportedError for a layer with a scheme of its own that no node belongs to.

    tensorrt: by the rules of `tensorrt_placing`, which a layer with a scheme of its own is free of.
    """
    schemes, named = _schemes(file, quant, matched, locate)
    between = tensorrt_placing.MEANS if tensorrt else ()
    able = [node.name for node in file.nodes if _can(file, node, quant) or node.op_type in between]
    asked = {name for name in able if schemes[name] == "int8"}
    spared: Mapping[str, str] = {}
    if quant.flavour == "asymmetric":
        asked = _fed(file, asked)
    elif tensorrt:
        asked, spared = tensorrt_placing.chosen(file, asked, named)
    by_name = {node.name: node for node in file.nodes}
    alone = [name for name, scheme in schemes.items() if scheme == "weight_int8" and _weight(file, by_name[name])]
    left = [
        f"{layer_of(file, node, locate)}: {node.op_type} has no integer kernel in ONNX Runtime"
        for node in _computing(file)
        if schemes[node.name] == "int8" and not _can(file, node, quant) and quant.flavour == "asymmetric"
    ]
    told = [f"{layer_of(file, by_name[name], locate)}: {reason}" for name, reason in spared.items()]
    return Placement(tuple(name for name in schemes if name in asked), tuple(alone), tuple(left), tuple(told))


def require_whole(placement: Placement, quant: QuantSpec) -> None:
    """Raise for operators that would stay in float, unless they may."""
    if placement.left and not quant.allow_float:
        where, _, problem = placement.left[0].partition(": ")
        others = len(placement.left) - 1
        more = f", and {others} more operator{'s' * (others > 1)} like it" if others else ""
        fix = 'set allow_float = true, give the layer the scheme "float32", or replace it'
        raise UnsupportedError(where, f"{problem}, so it would stay in floating point{more}", fix)


def scheme_of_layer(quant: QuantSpec, layer: str) -> Scheme:
    """The scheme of a layer by its name in the prepared graph."""
    return dict(quant.layers).get(layer, quant.scheme)


def _schemes(
    file: File, quant: QuantSpec, matched: Mapping[str, tuple[str, ...]], locate: Locate
) -> tuple[dict[str, Scheme], set[str]]:
    """Node -> scheme, and the nodes whose layer has one of its own.

    A node belongs to the layers whose output it computes, else to the one its names tell.
    """
    own = dict(quant.layers)
    used: set[str] = set()
    found: dict[str, Scheme] = {}
    by_name: set[str] = set()
    for node in file.nodes:
        layers = [key.split(":")[0] for name in node.output for key in matched.get(name, ())]
        layers = layers or [layer_of(file, node, locate)]
        named = next((layer for layer in layers if layer in own), None)
        found[node.name] = own[named] if named else _default(node, quant)
        used |= {named} if named else set()
        by_name |= {str(node.name)} if named else set()
    for layer in own:
        if layer not in used:
            problem = "is no layer that an operator of the ONNX graph belongs to, so it can have no scheme of its own"
            raise UnsupportedError(layer, problem, "name a layer of the prepared graph, as `diagnose` lists them")
    return found, by_name


def _default(node: Any, quant: QuantSpec) -> Scheme:
    """Softmax stays in float unless its layer is named: in 8 bits its probabilities below 1/256 would be lost."""
    return "float32" if node.op_type == "Softmax" else quant.scheme


def _computing(file: File) -> list[Any]:
    """Nodes that make real numbers of real numbers."""
    real = set(floats(file))
    return [node for node in file.nodes if real & set(node.output) and real & set(node.input)]


def _can(file: File, node: Any, quant: QuantSpec) -> bool:
    """Whether the flavour quantizes such a node."""
    if node.op_type in WEIGHTED:
        return True
    if quant.flavour == "symmetric":
        return bool(node.op_type == "Add" and not any(name in file.constants for name in node.input))
    return node.op_type in (*COMPUTING, *MOVING, "Softmax")


def _fed(file: File, asked: set[str]) -> set[str]:
    """Without what only moves values that a float operator computed: there is nothing to win behind it."""
    kept: set[str] = set()
    for node in file.nodes:
        if node.name not in asked:
            continue
        source = file.producers.get(node.input[0]) if node.input else None
        if node.op_type not in FOLLOWING or source is None or source.name in kept:
            kept.add(node.name)
    return kept


def _weight(file: File, node: Any) -> bool:
    return node.op_type in WEIGHTED and file.values(node.input[1]) is not None
