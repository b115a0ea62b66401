"""What runs and is slower than it could be: Q/DQ pairs in places that TensorRT cannot fuse.

NVIDIA's recommendations ("Working with Quantized Types", where to place Q/DQ), numbered as there:
1 the inputs of weighted layers; 2 not their outputs; 3 no pair before an activation or normalization that is fused;
4 the shortcut of a sum alone; 5 int8 in wants int8 out where nothing is weighted; 6 nothing that gains nothing;
7 one scale for activations, one a channel for weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from toolkit.tensorrt import lint_pairs
from toolkit.tensorrt.lint_flow import ACTIVATIONS, CONVOLUTIONS, PLAIN, SUMS, WEIGHTED, Flow
from toolkit.tensorrt.lint_graph import attribute
from toolkit.tensorrt.lint_types import Finding

TILE = 16  # channels of an int8 tensor-core tile, the least that Model Optimizer 0.47 quantizes
ALIGNED = 8  # channels that still make part of one

Rule = Callable[[Flow, Any], Iterator[Finding]]


def findings(flow: Flow) -> Iterator[Finding]:
    """Of the pairs first, then of the layers in the order of the file."""
    for group in lint_pairs.groups(flow):
        if not flow.of_constant(group[0]):
            yield from _pair(flow, group)
    yield from _several(flow)
    for node in flow.graph.nodes:
        for rule in (_weighted, _sum, _plain, _apart, _small, _single):
            yield from rule(flow, node)


def islands(flow: Flow) -> int:
    """Convolutions that compute in int8 amid floating point."""
    return sum(1 for node in flow.graph.nodes for _ in _single(flow, node))


# ---------------------------------------------------------------- pairs


def _pair(flow: Flow, group: list[Any]) -> Iterator[Finding]:
    where = f"tensor {flow.source(group[0])}"
    scales = flow.scales(group[0])
    if scales is not None and scales.size > 1:
        what = f"an activation with {scales.size} scales has no int8 kernels: what reads it computes in floating point"
        yield Finding("activation-per-channel", "slow", where, what, "give activations one scale (recommendation 7)")
        return
    _, floating = lint_pairs.readers(flow, group)
    told = any(any(rule(flow, node)) for node in floating if node is not None for rule in (_sum, _plain, _apart))
    if lint_pairs.is_island(flow, group) and not told:  # nothing to add to what is said of a layer that reads it
        names = ", ".join("an output" if node is None else flow.graph.where(node) for node in floating[:3]) or "nothing"
        what = f"converted to int8 and back around nothing that computes in int8; read by {names}"
        yield Finding("island", "slow", where, what, "take the pair away (recommendation 6)")


# ---------------------------------------------------------------- layers


def _weighted(flow: Flow, node: Any) -> Iterator[Finding]:
    """Recommendation 1: both inputs or none, scales along the outputs."""
    if node.op_type not in WEIGHTED or flow.computes(node):
        return
    where, given = flow.graph.where(node), flow.supply(node.input[0]) is not None
    weight = flow.weight(node)
    if weight is not None and given:
        what = "computes in floating point: its weights' scales do not run along its outputs"
        yield Finding("weight-axis", "slow", where, what, "quantize along the axis of the outputs")
    elif weight is not None:
        what = "computes in floating point: its weights have Q/DQ and its input has not"
        yield Finding("weights-only", "slow", where, what, "put a pair on its input too, or none on its weights")
    elif given and flow.graph.is_constant(node.input[1]):
        what = "computes in floating point: its input has Q/DQ and its weights have not"
        yield Finding("input-only", "slow", where, what, "put a pair on its weights too, or none on its input")


def _sum(flow: Flow, node: Any) -> Iterator[Finding]:
    """Recommendation 4: a pair on the shortcut and on nothing else."""
    if node.op_type not in SUMS or len(node.input) != 2 or flow.epilogue(node) is not None:
        return
    graph, where = flow.graph, flow.graph.where(node)
    if any(graph.is_constant(name) for name in node.input):
        return
    for name in node.input:
        dequantize = flow.supply(name)
        maker = None if dequantize is None else lint_pairs.heavy(flow, flow.source(dequantize))
        direct = graph.producers.get(flow.source(dequantize)) if dequantize is not None else None
        if maker is direct and maker is not None and maker.op_type in CONVOLUTIONS and flow.computes(maker):
            what = f"a kernel of its own: the pair between it and {graph.where(maker)} keeps them from being fused"
            fix = "take that pair away and keep the one on the shortcut (recommendation 4)"
            yield Finding("sum-not-fused", "slow", where, what, fix)
            return
    for name in node.input:
        maker = flow.alone(name)
        if maker is not None and maker.op_type in CONVOLUTIONS and flow.computes(maker):
            what = f"the shortcut beside {graph.where(maker)} is read in floating point"
            yield Finding("shortcut-float", "slow", where, what, "put a pair on the shortcut (recommendation 4)")
            return


def _plain(flow: Flow, node: Any) -> Iterator[Finding]:
    """Recommendation 5, and one scale for everything that is joined."""
    if node.op_type not in PLAIN:
        return
    where = flow.graph.where(node)
    given = {name: each for name in node.input if (each := flow.supply(name)) is not None}
    data = [name for name in node.input if not flow.graph.is_constant(name)]
    data = data[:1] if node.op_type == "ReduceMean" else data
    if node.op_type == "Concat" and len({flow.scale_key(each) for each in given.values()}) > 1:
        what = "its int8 inputs have several scales: each is converted before they are joined"
        yield Finding("concat-scales", "slow", where, what, "give all its inputs and its output one scale")
    if not given or flow.computes(node):
        return
    if len(given) < len(data):
        if node.op_type == "Concat" and flow.demanded(node.output[0]):
            what = "int8 is wanted of it, and only some of its inputs come as int8: those are converted back first"
            yield Finding(
                "concat-mixed", "slow", where, what, "put a pair of the same scale on every input, or on none"
            )
        elif node.op_type not in (*SUMS, "Concat"):
            what = "one of its inputs is converted back from int8: the other has no pair"
            yield Finding("plain-mixed", "slow", where, what, "put a pair on both inputs and the output, or on none")
    elif not flow.supply(node.output[0]) and not any(_sum(flow, node)):
        what = "int8 in and floating point out: computed in floating point behind a conversion"
        fix = "put a pair on its output too, or take that on its input away (recommendation 5)"
        yield Finding("float-out", "slow", where, what, fix)


def _apart(flow: Flow, node: Any) -> Iterator[Finding]:
    """Recommendations 2 and 3: a pair between a layer and what would be fused into it."""
    if node.op_type not in (*ACTIVATIONS, "BatchNormalization"):
        return
    dequantize = flow.supply(node.input[0])
    maker = flow.graph.producers.get(flow.source(dequantize)) if dequantize is not None else None
    if maker is not None and maker.op_type in (*WEIGHTED, *SUMS):
        what = f"a kernel of its own: the pair between it and {flow.graph.where(maker)} keeps them from being fused"
        yield Finding("not-fused", "slow", flow.graph.where(node), what, "put the pair behind it (recommendation 3)")
        return
    direct = flow.alone(node.input[0]) if node.op_type == "BatchNormalization" else None
    if direct is not None and direct.op_type in CONVOLUTIONS and flow.weight(direct) is not None:
        what = f"quantized weights of {flow.graph.where(direct)} cannot take it in: it stays in floating point"
        yield Finding("batch-norm", "slow", flow.graph.where(node), what, "fold it into the weights, then quantize")


def _small(flow: Flow, node: Any) -> Iterator[Finding]:
    """Recommendation 6: what does not fill a tile of the tensor cores (Model Optimizer's exclusions)."""
    if node.op_type not in WEIGHTED or not flow.computes(node) or (weight := flow.weight(node)) is None:
        return
    shape = [size or TILE for size in flow.graph.shape(weight.output[0]) or ()]
    problem = ""
    if node.op_type == "Conv" and len(shape) > 2:
        problem = _small_convolution(flow, node, shape)
    elif node.op_type in ("Gemm", "MatMul") and len(shape) == 2 and min(shape) < TILE:
        problem = f"a matrix of {shape[0]} x {shape[1]}"
    if problem:
        what = f"{problem} does not fill a tile of {TILE}: int8 is hardly faster than float16"
        yield Finding("small", "slow", flow.graph.where(node), what, "leave it in floating point (recommendation 6)")


def _small_convolution(flow: Flow, node: Any, shape: list[int]) -> str:
    (outputs, inputs), sides = shape[:2], shape[2:]
    if min(outputs, inputs) >= TILE:
        return ""
    kernel = "x".join(map(str, sides))
    groups = attribute(node, "group", 1)
    if groups > 1:
        fine = outputs % ALIGNED == 0 and min(sides) >= 3
        return "" if fine else f"{outputs} channels in {groups} groups with a {kernel} kernel"
    dequantize = flow.supply(node.input[0])
    first = dequantize is not None and flow.source(dequantize) in flow.graph.inputs
    aligned = outputs % ALIGNED == 0 or inputs % ALIGNED == 0
    fine = aligned and (first or max(outputs, inputs) >= TILE) and len(set(sides)) == 1
    return "" if fine else f"{inputs} to {outputs} channels with a {kernel} kernel"


def _single(flow: Flow, node: Any) -> Iterator[Finding]:
    """An int8 convolution whose input a float layer writes, and that no int8 layer reads."""
    if node.op_type not in CONVOLUTIONS or not flow.computes(node) or flow.demanded(node.output[0]):
        return
    source = flow.source(flow.supply(node.input[0]))
    before = lint_pairs.heavy(flow, source)
    after = [each for each, _ in flow.readers(node.output[0])]
    summed = any(each is not None and flow.epilogue(each) is node for each in after)
    heavy = before is not None and before.op_type in CONVOLUTIONS and not flow.computes(before)
    follows = _follows(flow, node.output[0])
    if heavy and not summed and follows and not any(map(flow.computes, follows)):
        what = "int8 amid floating point: its input is converted for it alone, and its output is read in floating point"
        fix = "quantize its neighbours too, or leave it in floating point (recommendation 6)"
        yield Finding("lone-int8", "slow", flow.graph.where(node), what, fix)


def _follows(flow: Flow, name: str, depth: int = 4) -> list[Any]:
    """The next weighted layers behind a tensor, over at most `depth` others."""
    found = []
    for reader in flow.graph.consumers.get(name, []):
        if reader.op_type in WEIGHTED:
            found.append(reader)
        elif depth:
            found += [each for output in reader.output for each in _follows(flow, output, depth - 1)]
    return found


def _several(flow: Flow) -> Iterator[Finding]:
    """One tensor quantized with several scales: a conversion for each."""
    scales: dict[str, set[Any]] = {}
    for node in flow.quantizers:
        scales.setdefault(node.input[0], set()).add(flow.scale_key(node))
    for name, every in scales.items():
        if len(every) > 1 and not flow.graph.is_constant(name):
            what = f"quantized with {len(every)} scales: a conversion for each"
            yield Finding("several-scales", "slow", f"tensor {name}", what, "give it one scale")
