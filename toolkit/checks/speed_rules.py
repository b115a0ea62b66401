"""What keeps a file from being faster, each by a rule of its own: a function from what was `Seen` to findings.

Sources: ai.google.dev/edge/litert and LiteRT's xnnpack_delegate.cc for what XNNPACK takes; onnxruntime.ai, "Quantize
ONNX models" and "Graph Optimizations"; Williams et al., 2009, for the roofline.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.checks.speed import ONE_LAYER, WEIGHTS_ALONE, Finding, counted, named, several
from toolkit.checks.speed_graph import ACTIVATIONS, Graph, Node
from toolkit.checks.speed_match import Row
from toolkit.checks.zeros import Zeros, is_sparse, use_of
from toolkit.core import Artifact
from toolkit.devices import DeviceProfile
from toolkit.estimates.roofline import Estimate

WORTH = 0.02  # of the time: the error of a latency that several processes agree on (docs/devices.md)
DOMINANT = 0.4  # of the time in one of several layers
FEW = 5  # layers: of fewer one always dominates
BOUND = 0.5  # of the estimated time in layers that memory limits
WASTED = 0.1  # of the MACs, in channels that are only there to fill a tile
TURNING = 0.1  # of the time, in what only turns values around
LITERT = ("litert", "tflite-runtime")
CPUS = (*LITERT, "onnxruntime", "openvino")
TURNING_TYPES = ("QuantizeLinear", "DequantizeLinear", "Cast")
SHOWN = 12  # names kept with a finding
LOGITS = "end the network in logits: the largest is the same one, and softmax can be taken outside the file"
UNUSED = 'quantize with uint8 activations and int8 weights (scheme = "int8"), the form that ONNX Runtime fuses'
REORDERED = (
    "keep to operators that ONNX Runtime has in its blocked layout (Conv, pooling, Add, ReLU) between convolutions"
)
CASTS = "onnxruntime, core/optimizer/insert_cast_transformer.cc: its CPU kernels of most operators are float32"
AMX_TILE = 64  # channels of XNNPACK's int8 kernels with AMX, for 16 pixels at once
AMX_SCHEMES = ("int8", "dynamic")
AMX = "XNNPACK, src/configs/gemm-config.c: qs8-qc8w-igemm 16x64c4 avx512amx, where the processor has it"
PACKING = "XNNPACK, src/packing.c, and MLAS, sgemm.cpp and snchwc.cpp: output channels are filled up to a tile"
AT_LOADING = "LiteRT, xnnpack_delegate.cc: DEQUANTIZE of constants is done once, when the file is loaded"
HYBRID = "LiteRT, xnnpack_delegate.cc: DEPTHWISE_CONV_2D of float values and int8 weights is not taken"


@dataclass(frozen=True)
class Seen:
    """Everything that is known of one file on one device.

    rows: its profile there, matched. pieces: what the delegate took, None where nobody was asked; asked: who was.
    timed: share of each place, as estimated; limits: what limits it. tile: channels that kernels there make at once;
    amx: the processor has AMX.
    """

    artifact: Artifact
    graph: Graph
    device: DeviceProfile
    runtime: str
    delegate: str
    threads: int = 1
    rows: tuple[Row, ...] = ()
    pieces: tuple[tuple[int, ...], ...] | None = None
    asked: str = ""
    estimate: Estimate | None = None
    zeros: Zeros | None = None
    timed: Mapping[int, float] = field(default_factory=dict)
    limits: Mapping[int, str] = field(default_factory=dict)
    tile: int = 8
    amx: bool = False

    def share(self, places: Iterable[int]) -> float | None:
        """Of the time in these operators, as measured; None where the profile has none of them."""
        wanted = set(places)
        own = [row.share for row in self.rows if row.place in wanted]
        return sum(own) if own else None

    def estimated(self, places: Iterable[int]) -> float | None:
        """The same, as estimated."""
        return sum(self.timed.get(place, 0.0) for place in places) if self.timed else None

    def finding(self, rule: str, nodes: Sequence[Node], text: str, advice: str, **how: Any) -> Finding:
        """About these operators; how: shown_by, evidence, and a share where it is not simply theirs."""
        places = [node.place for node in nodes]
        shares = {"share": self.share(places), "estimated": self.estimated(places)} | how
        names = tuple(node.name for node in nodes)
        return Finding(rule, text, advice, layers=names[:SHOWN], count=len(names), **shares)


Rule = Callable[[Seen], Iterator[Finding]]


def findings(seen: Seen) -> tuple[Finding, ...]:
    """What stands out, the strongest first; nothing that takes less than WORTH of the time, where that is known."""
    found = [finding for rule in RULES for finding in rule(seen)]
    worth = [each for each in found if each.whole or _known(each) is None or (_known(each) or 0.0) >= WORTH]
    return tuple(sorted(worth, key=lambda finding: -finding.weight))


def _known(finding: Finding) -> float | None:
    return finding.estimated if finding.share is None else finding.share


# ---------------------------------------------------------------- who computes


def left_by_delegate(seen: Seen) -> Iterator[Finding]:
    """Operators of a .tflite file that XNNPACK did not take."""
    if seen.graph.format != "tflite" or seen.delegate != "xnnpack" or seen.runtime not in LITERT:
        return
    if seen.pieces is None:
        yield from _left_by_rule(seen)
        return
    taken = {node.place for piece in seen.pieces for operator in piece if (node := seen.graph.here(operator))}
    left = [node for node in seen.graph.nodes if node.place not in taken]
    if not left:
        return
    pieces = len(seen.pieces)
    text = (
        f"XNNPACK leaves {len(left)} of {len(seen.graph.nodes)} operators to LiteRT's own kernels "
        f"({counted(node.operator for node in left)})"
    )
    text += f" and works in {pieces} pieces" if pieces > 1 else ""
    evidence = f"the pieces that {seen.asked} lists"
    yield seen.finding("delegate", left, text, _advice_left(seen, left), shown_by="runtime", evidence=evidence)


def _left_by_rule(seen: Seen) -> Iterator[Finding]:
    """What is known to be left, where nobody could be asked."""
    hybrid = [node for node in seen.graph.nodes if node.depthwise and seen.graph.scheme == "dynamic"]
    custom = [node for node in seen.graph.nodes if node.operator.startswith("CUSTOM:")]
    for nodes, evidence in ((hybrid, HYBRID), (custom, "LiteRT, xnnpack_delegate.cc: custom operators are not taken")):
        if nodes:
            text = f"XNNPACK takes none of the {counted(node.operator for node in nodes)}, by its rules"
            yield seen.finding("delegate", nodes, text, _advice_left(seen, nodes), shown_by="rule", evidence=evidence)


def _advice_left(seen: Seen, left: Sequence[Node]) -> str:
    if {node.operator for node in left} == {"SOFTMAX"}:
        return LOGITS
    if seen.graph.scheme == "dynamic" and any(node.depthwise for node in left):
        return 'quantize with scheme = "int8", or leave the depthwise layers in float32 (`layers` of `quantize`)'
    kinds = ", ".join(dict.fromkeys(node.operator for node in left[:3]))
    return f"replace {kinds} by operators that XNNPACK has, or move it to an end of the network"


def own_kernels(seen: Seen) -> Iterator[Finding]:
    """A .tflite file that runs without any delegate."""
    if seen.runtime not in LITERT or seen.delegate != "none":
        return
    wide = seen.graph.scheme == "int16x8"
    text = "all of it runs on LiteRT's own kernels" + (", since XNNPACK has none of 16 bits" if wide else "")
    advice = 'use scheme = "int8", with int16x8 for a few `layers` alone' if wide else 'use the delegate "xnnpack"'
    evidence = "the runtime that the device's profile has for such a file"
    yield Finding("kernels", text, advice, "rule", evidence, whole=True)


def left_by_provider(seen: Seen) -> Iterator[Finding]:
    """Nodes that ONNX Runtime ran on the CPU, though a GPU was asked for."""
    wanted = {"cuda": "CUDA", "tensorrt": "Tensorrt"}.get(seen.delegate)
    if seen.runtime != "onnxruntime" or wanted is None or not seen.rows:
        return
    left = [row for row in seen.rows if row.by == "CPU" or row.kind.startswith("Memcpy")]
    if left:
        share = sum(row.share for row in left)
        text = (
            f"{several(len(left), 'node')} on the CPU, or copying to and from it ({counted(row.kind for row in left)})"
        )
        names = tuple(row.name for row in left)
        evidence = "ONNX Runtime's profile"
        advice = "replace these operators, or keep the pre- and postprocessing out of the file"
        yield Finding("delegate", text, advice, "measured", evidence, names[:SHOWN], len(names), share)


# ---------------------------------------------------------------- types


def float_islands(seen: Seen) -> Iterator[Finding]:
    """Operators that compute in floating point inside an integer file."""
    if seen.graph.scheme not in ("int8", "int16x8") or seen.runtime == "tensorrt":
        return
    if seen.runtime == "onnxruntime" and any(row.writes for row in seen.rows):
        yield from _islands_that_ran(seen)
        return
    islands = [node for node in seen.graph.nodes if node.computes == "float"]
    if islands:
        edges = _edges_of(seen.graph, islands)
        text = _island_text(islands, len(edges))
        evidence = "the types of the file's tensors" if seen.graph.format == "tflite" else "the file's Q/DQ"
        advice = _advice_island(seen, [node.operator for node in islands])
        found = seen.finding("float island", [*islands, *edges], text, advice, shown_by="file", evidence=evidence)
        yield found


def _islands_that_ran(seen: Seen) -> Iterator[Finding]:
    """By the types that ONNX Runtime computed in, conversions beside them included."""
    floats = [row for row in seen.rows if _is_float(row)]
    if not floats:
        return
    edges = _inner_edges(seen)
    share = sum(row.share for row in (*floats, *edges))
    unused = [row for row in floats if row.place is not None and seen.graph.by_place[row.place].computes == "integer"]
    advice = UNUSED if 2 * len(unused) > len(floats) else _advice_island(seen, [row.kind for row in floats])
    text = f"{several(len(floats), 'node')} in floating point ({counted(row.kind for row in floats)})"
    text += f", with {several(len(edges), 'conversion')} between types" if edges else ""
    text += f"; {len(unused)} of them have Q/DQ around in the file" if unused else ""
    evidence = "the types in ONNX Runtime's profile"
    names = tuple(row.name for row in floats)
    yield Finding("float island", text, advice, "measured", evidence, names[:SHOWN], len(names), share)


def _is_float(row: Row) -> bool:
    return row.reads.startswith("float") and row.writes.startswith("float") and row.kind not in TURNING_TYPES


def _inner_edges(seen: Seen) -> list[Row]:
    """Conversions that ran, but for those of the file's own inputs and outputs."""
    ends = {node.place for node in seen.graph.nodes if node.first or node.last}
    return [row for row in seen.rows if row.kind in TURNING_TYPES and row.place not in ends]


def _edges_of(graph: Graph, islands: Sequence[Node]) -> list[Node]:
    """The conversions around them."""
    places = {place for node in islands for place in (*node.reads, *node.read_by)}
    return [node for node in graph.nodes if node.place in places and node.computes == "edge"]


def _island_text(islands: Sequence[Node], edges: int) -> str:
    text = f"{several(len(islands), 'operator')} in floating point ({counted(node.operator for node in islands)})"
    return f"{text}, with {several(edges, 'conversion')} around" if edges else text


def _advice_island(seen: Seen, kinds: Sequence[str]) -> str:
    kept = any(node.operator in ACTIVATIONS and node.computes == "float" for node in seen.graph.nodes)
    if seen.graph.format == "onnx" and kept:
        return (
            'let activations be asymmetric (flavour = "asymmetric"), so that ReLU and Clip are absorbed by the'
            " quantization behind them"
        )
    if {kind.upper() for kind in kinds} == {"SOFTMAX"}:
        return LOGITS
    most = max(dict.fromkeys(kinds), key=kinds.count)
    return f"replace the layer that becomes {most} by one with an integer kernel, or quantize its output too"


def round_trips(seen: Seen) -> Iterator[Finding]:
    """Values turned to another type and back, or from one scale to another, with nothing computed between."""
    known = seen.graph.by_place
    pairs = []
    for node in seen.graph.nodes:
        into = [known[place] for place in node.read_by if place in known]
        back = node.computes == "edge" and node.operator.upper().startswith("DEQUANTIZE")
        if back and into and not node.last and all(each.operator.upper().startswith("QUANTIZE") for each in into):
            pairs.append(node)
    again = [node for node in seen.graph.nodes if node.requantizes and not (node.first or node.last)]
    if pairs:
        text = f"values are dequantized and quantized again with nothing between, in {several(len(pairs), 'place')}"
        advice = "give both sides the same scale, or export again from the float model"
        both = [*pairs, *(known[place] for node in pairs for place in node.read_by)]
        yield seen.finding("round trip", both, text, advice, shown_by="file", evidence="the file's graph")
    if again:
        text = f"integers are only given another scale (QUANTIZE), in {several(len(again), 'place')}"
        advice = "let the tensors that are joined have one scale (calibrate them together)"
        yield seen.finding("rescaling", again, text, advice, shown_by="file", evidence="the file's graph")


def conversions(seen: Seen) -> Iterator[Finding]:
    """Conversions that ONNX Runtime could not fuse into an integer operator, in files where nothing is float."""
    if seen.runtime != "onnxruntime" or not seen.rows or seen.runtime == "tensorrt":
        return
    edges = _inner_edges(seen)
    if not edges or (seen.graph.scheme == "int8" and any(map(_is_float, seen.rows))):
        return  # told with the islands
    names, share = tuple(row.name for row in edges), sum(row.share for row in edges)
    text = (
        f"{several(len(edges), 'node')} for nothing but conversion between types ({counted(row.kind for row in edges)})"
    )
    advice = "export for this runtime (an .onnx file of int8 activations for CPUs; float16 is for GPUs)"
    yield Finding("conversions", text, advice, "measured", "ONNX Runtime's profile", names[:SHOWN], len(names), share)


def quantized_anew(seen: Seen) -> Iterator[Finding]:
    """Activations whose range is looked for in each inference."""
    nodes = [node for node in seen.graph.nodes if node.operator == "DynamicQuantizeLinear"]
    if nodes:
        text = f"the range of {several(len(nodes), 'tensor')} is looked for in each inference (DynamicQuantizeLinear)"
        advice = 'calibrate: scheme = "int8" has the ranges in the file'
        yield seen.finding("dynamic", nodes, text, advice, shown_by="file", evidence="the file's operators")


def weights_alone(seen: Seen) -> Iterator[Finding]:
    """Files that are smaller, and computed in float32 all the same."""
    scheme, cpu = seen.graph.scheme, seen.delegate in ("xnnpack", "cpu", "none", "")
    if seen.runtime not in (*LITERT, "onnxruntime") or not cpu:
        return
    if scheme in ("weight_int8", "weight_int4", "float16"):
        text = f"the weights are {scheme.removeprefix('weight_')}, the arithmetic is float32: smaller, not faster"
        evidence = AT_LOADING if seen.graph.format == "tflite" else "the file's operators"
        evidence = CASTS if scheme == "float16" and seen.graph.format == "onnx" else evidence
        yield Finding(WEIGHTS_ALONE, text, 'use scheme = "int8" for integer arithmetic', "file", evidence, whole=True)


# ---------------------------------------------------------------- work


def dominant(seen: Seen) -> Iterator[Finding]:
    """One operator that takes most of the time."""
    if len(seen.rows) < FEW:
        return
    most = max(seen.rows, key=lambda row: row.share)
    if most.share < DOMINANT or (most.by == "delegate" and most.place is None and len(seen.pieces or ()) > 1):
        return  # the last: rows of several pieces are added up
    node = seen.graph.by_place.get(most.place) if most.place is not None else None
    name = node.name if node else most.name
    work = seen.graph.work.get(node.place) if node else None
    macs = work.macs / seen.graph.macs if work and seen.graph.macs else None
    text = f"one layer takes the largest part: {name} ({most.kind})"
    text += f", with {100 * macs:.0f}% of the MACs" if macs is not None else ""
    advice = "make this layer smaller (channels, resolution, kernel): the others matter little"
    yield Finding(ONE_LAYER, text, advice, "measured", "the runtime's profile", (name,), 1, most.share)


def memory_bound(seen: Seen) -> Iterator[Finding]:
    """Layers that wait for memory, by the roofline."""
    if seen.estimate is None or seen.estimate.share_of("memory") < BOUND:
        return
    nodes = [node for node in seen.graph.nodes if seen.limits.get(node.place) == "memory"]
    nodes.sort(key=lambda node: -seen.timed.get(node.place, 0.0))
    share = seen.estimate.share_of("memory")
    text = f"{len(nodes)} of {len(seen.limits)} layers wait for memory: {named([node.name for node in nodes])}"
    advice = "fewer bytes count there, not fewer MACs: int8 for float32, fewer channels where images are large"
    evidence = f"roofline on {seen.estimate.processor}; {seen.estimate.based_on}"
    how: dict[str, Any] = {"shown_by": "estimated", "evidence": evidence, "share": None, "estimated": share}
    yield seen.finding("memory", nodes, text, advice, **how)


def off_tile(seen: Seen) -> Iterator[Finding]:
    """Output channels that fill no tile of the kernels."""
    if seen.runtime not in CPUS or not seen.graph.macs:
        return
    yield from _filling(seen, [node for node in seen.graph.nodes if not _by_amx(seen, node)], seen.tile)
    yield from _filling(seen, [node for node in seen.graph.nodes if _by_amx(seen, node)], AMX_TILE)


def _by_amx(seen: Seen, node: Node) -> bool:
    """Whether XNNPACK computes it by int8 products in AMX's tiles; depthwise layers are no matrix products."""
    given = seen.amx and seen.runtime in LITERT and seen.delegate == "xnnpack"
    return given and seen.graph.scheme in AMX_SCHEMES and not node.depthwise


def _filling(seen: Seen, nodes: Sequence[Node], tile: int) -> Iterator[Finding]:
    """What of the work fills up tiles of so many channels."""
    lost, odd = 0.0, []
    for node in nodes:
        layer = seen.graph.work.get(node.place)
        if layer is None or not node.channels or node.last:
            continue  # the last: as many as there are classes
        filled = -(-node.channels // tile) * tile
        if filled > node.channels:
            odd.append(node)
            lost += layer.macs * (filled / node.channels - 1)
    share = lost / (seen.graph.macs + lost)
    if share < WASTED:
        return
    is_amx = tile == AMX_TILE
    who = " (what AMX computes at once in int8)" if is_amx else ""
    text = f"{several(len(odd), 'layer')} with channels that are no multiple of {tile}{who}, which"
    text += f" makes {100 * share:.0f}% of the work mere filling"
    advice = f"let `prune` weigh steps by that (`device`, a global ranking) or cut in multiples (`round_to = {tile}`)"
    advice += ", or widen to the next one at no cost"
    if is_amx:
        advice = "measure on the device itself: few have AMX, and without it fewer channels take less time"
    evidence = AMX if is_amx else PACKING
    how: dict[str, Any] = {"shown_by": "rule", "evidence": evidence, "share": None, "estimated": share}
    yield seen.finding("tile", odd, text, advice, **how)


def turning(seen: Seen) -> Iterator[Finding]:
    """Layout changes."""
    rows = [row for row in seen.rows if row.kind.startswith(("Transpose", "TRANSPOSE", "Reorder"))]
    share = sum(row.share for row in rows)
    if share >= TURNING:
        text = f"{several(len(rows), 'operator')} for nothing but another layout ({counted(row.kind for row in rows)})"
        names = tuple(row.name for row in rows)
        blocked = any(row.kind.startswith("Reorder") for row in rows)
        advice = (
            REORDERED if blocked else "export with the layout that the runtime computes in (`layout` of the exporter)"
        )
        yield Finding("layout", text, advice, "measured", "the runtime's profile", names[:SHOWN], len(rows), share)


# ---------------------------------------------------------------- what the runtime ignores


def ignored_zeros(seen: Seen) -> Iterator[Finding]:
    """Zeros in the weights that nobody makes use of."""
    if seen.zeros is None or not is_sparse(seen.zeros):
        return
    use = use_of(seen.artifact, seen.zeros, seen.device, seen.runtime, seen.delegate)
    if use.used == "no":
        text = f"{100 * seen.zeros.share:.0f}% of its weights are zero, and the time is that of a dense file: {use.why}"
        advice = "remove channels (`prune`) to be faster; zeros make what is sent smaller"
        yield Finding("zeros", text, advice, "rule", use.source, whole=True)


def threads(seen: Seen) -> Iterator[Finding]:
    """More threads than there are cores."""
    cores = cores_of(seen.device)
    if cores and seen.threads > cores:
        text = f"{seen.threads} threads share {cores} core{'s' * (cores > 1)}"
        advice = "ask for no more threads than cores, and sweep: edgekit bench --threads 1,2,4"
        yield Finding("threads", text, advice, "rule", "the device's processors", whole=True)


def cores_of(device: DeviceProfile) -> int | None:
    """How many a file can use there, where that is known."""
    if device.processors:
        return device.processors[0].cores
    return os.cpu_count() if device.transport == "local" else None


RULES: tuple[Rule, ...] = (
    left_by_delegate,
    own_kernels,
    left_by_provider,
    float_islands,
    round_trips,
    conversions,
    quantized_anew,
    weights_alone,
    dominant,
    memory_bound,
    off_tile,
    turning,
    ignored_zeros,
    threads,
)
