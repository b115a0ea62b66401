"""What becomes of each quantized tensor, which layers stay in floating point, and how often types change between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.tensorrt.lint_flow import ACTIVATIONS, CONVOLUTIONS, MOVING, PLAIN, PRODUCTS, WEIGHTED, Flow
from toolkit.tensorrt.lint_types import Counts, FloatLayer, Pair

# Layers that take time of their own; what is fused behind them or only moves values is not counted.
HEAVY = (*WEIGHTED, *PLAIN, "BatchNormalization", "Div", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Pow",
         "InstanceNormalization", "LayerNormalization", "Resize", "Sigmoid", "Softmax", "Sqrt", "Tanh")  # fmt: skip
SHOWN = 3  # readers named in a sentence


def pairs(flow: Flow) -> tuple[Pair, ...]:
    """One for each quantized tensor and scale, in the order they are read."""
    return tuple(_pair(flow, group) for group in groups(flow))


def groups(flow: Flow) -> list[list[Any]]:
    """DequantizeLinears of the same tensor with the same scale: TensorRT makes one conversion of them."""
    found: dict[Any, list[Any]] = {}
    for dequantize in flow.dequantizers:
        found.setdefault((flow.source(dequantize), flow.scale_key(dequantize)), []).append(dequantize)
    return list(found.values())


def readers(flow: Flow, group: list[Any]) -> tuple[list[Any], list[Any]]:
    """(those that read in int8, those that read in floating point) of the values of these DequantizeLinears.

    A QuantizeLinear counts as the former. None among the latter: an output of the network.
    """
    taking: list[Any] = []
    floating: list[Any] = []
    for dequantize in group:
        for node, _ in flow.readers(dequantize.output[0]):
            integer = node is not None and (node.op_type == "QuantizeLinear" or flow.computes(node))
            (taking if integer else floating).append(node)
    return _once(taking), _once(floating)


def is_island(flow: Flow, group: list[Any]) -> bool:
    """Whether nothing computes with these integers; those that are only quantized once more are passed on."""
    taking, floating = readers(flow, group)
    computing = [node for node in taking if node.op_type != "QuantizeLinear"]
    return not computing and (bool(floating) or not taking)


def _pair(flow: Flow, group: list[Any]) -> Pair:
    taking, floating = readers(flow, group)
    tensor = flow.source(group[0])
    if flow.of_constant(group[0]):
        return _stored(flow, group[0], tensor, taking)
    entering, origin = _origin(flow, group[0])
    if is_island(flow, group):
        back = f"and converted back for {_named(flow, floating)}" if floating else "and read by nothing"
        words = f"nothing that reads it computes in int8: {origin}, {back}"
        return Pair(tensor, "island", words, entering + bool(floating))
    back = f"; converted back to floating point for {_named(flow, floating)}" if floating else ""
    return Pair(tensor, "fused", f"{origin}, read as int8 by {_named(flow, taking)}{back}", entering + bool(floating))


def _stored(flow: Flow, dequantize: Any, tensor: str, taking: list[Any]) -> Pair:
    scales = flow.scales(dequantize)
    count = "computed scales" if scales is None else "one scale" if scales.size == 1 else f"{scales.size} scales"
    if taking:
        return Pair(tensor, "weights", f"stored as int8 in the engine, {count}, for {_named(flow, taking)}")
    every = [node for node, _ in flow.readers(dequantize.output[0])]
    return Pair(tensor, "float", f"rounded, and computed with in floating point by {_named(flow, every)}")


def _origin(flow: Flow, dequantize: Any) -> tuple[int, str]:
    """(conversions to int8, in words how the integers come to be)."""
    graph, source = flow.graph, flow.source(dequantize)
    if flow.quantizer(dequantize) is None:
        return 0, "given as int8" if source in graph.inputs else "computed as int8"
    writer = flow.writer(source)
    if writer is not None:
        return 0, f"written as int8 by {graph.where(writer)}"
    if source in graph.inputs:
        return 1, "the network's input, converted to int8"
    before = flow.supply(source)
    if before is not None:
        same = flow.scale_key(before) == flow.scale_key(dequantize)
        return (0, "int8 already, of this scale") if same else (1, "int8 already, converted to another scale")
    maker = heavy(flow, source)
    if maker is None or maker.op_type == "DequantizeLinear":
        last = flow.graph.producers.get(source)
        return (
            1,
            f"written in floating point by {graph.where(last)} and converted to int8" if last else "converted to int8",
        )
    integer = flow.computes(maker) and not flow.demanded(source)
    reason = ", which others read in floating point too," if integer else ""
    return 1, f"written in floating point by {graph.where(maker)}{reason} and converted to int8"


def heavy(flow: Flow, name: str) -> Any:
    """The layer that a tensor comes from, over activations and what moves values; None for an input or constant."""
    maker = flow.graph.producers.get(name)
    while maker is not None and maker.op_type in (*ACTIVATIONS, *MOVING) and maker.input:
        maker = flow.graph.producers.get(maker.input[0])
    return maker


# ---------------------------------------------------------------- layers


def counts(flow: Flow, found: tuple[Pair, ...], alone: int) -> Counts:
    """alone: int8 convolutions amid floating point."""
    convolutions = [node for node in flow.graph.nodes if node.op_type in CONVOLUTIONS]
    products = [node for node in flow.graph.nodes if node.op_type in PRODUCTS and is_layer(flow, node)]
    return Counts(
        convolutions=len(convolutions),
        int8_convolutions=sum(map(flow.computes, convolutions)),
        products=len(products),
        int8_products=sum(map(flow.computes, products)),
        reformats=sum(pair.reformats for pair in found),
        islands=alone + sum(pair.fate == "island" for pair in found),
    )


def left(flow: Flow) -> Iterator[FloatLayer]:
    """Layers in floating point, with the reason; none of a file without Q/DQ."""
    for node in flow.graph.nodes if flow.quantizers or flow.dequantizers else ():
        if node.op_type in HEAVY and is_layer(flow, node) and not flow.computes(node):
            yield FloatLayer(flow.graph.where(node), reason(flow, node))


def reason(flow: Flow, node: Any) -> str:
    """Why a layer computes in floating point."""
    if node.op_type not in (*WEIGHTED, *PLAIN):
        return "it has no int8 form that is worth it"
    given = flow.supply(node.input[0]) is not None
    if node.op_type in WEIGHTED:
        return _why_weighted(flow, node, given)
    every = [name for name in node.input if not flow.graph.is_constant(name)]
    if given and all(flow.supply(name) is not None for name in every):
        return "its inputs have Q/DQ and its output has none"
    return "not all of its inputs have Q/DQ" if len(every) > 1 else "its input has no Q/DQ"


def _why_weighted(flow: Flow, node: Any, given: bool) -> str:
    weight = flow.weight(node)
    if node.op_type == "MatMul" and weight is None and not flow.graph.is_constant(node.input[1]):
        return "not both of its inputs have Q/DQ"
    if weight is None:
        return "its weights have no Q/DQ" if given else "neither its input nor its weights have Q/DQ"
    if not given:
        return "its weights have Q/DQ and its input has none of one scale"
    return "the scales of its weights do not run along its outputs"


def is_layer(flow: Flow, node: Any) -> bool:
    """Whether it computes at run time, with what is no shape or index."""
    integers = (6, 7, 9)  # TensorProto.INT32, INT64, BOOL
    output = node.output[0]
    return not flow.graph.is_constant(output) and flow.graph.types.get(output, 1) not in integers


def _named(flow: Flow, nodes: list[Any]) -> str:
    names = ["an output of the network" if node is None else flow.graph.where(node) for node in nodes]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "nothing"


def _once(nodes: list[Any]) -> list[Any]:
    return list({id(node): node for node in nodes}.values())
