"""Rules on speed: on files with one fault planted each is found and named, and on clean ones nothing is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checks.speed_nets import Lite, Onnx
from toolkit.checks.speed import NO_GAIN, Finding, Speed, counted, named, strongest
from toolkit.checks.speed_graph import Graph, Node, read_graph
from toolkit.checks.speed_match import Row
from toolkit.checks.speed_rules import WORTH, Seen, findings
from toolkit.checks.zeros import Zeros
from toolkit.core import Artifact, Signature
from toolkit.devices import load_device
from toolkit.errors import InputError
from toolkit.estimates.roofline import Estimate, LayerTime
from toolkit.estimates.workload import Layer

PHONE = load_device("raspberry-pi-4")


def seen(path: Path, **more: Any) -> Seen:
    graph = read_graph(path)
    artifact = Artifact(path.name, path, graph.format, graph.scheme, 1, "", Signature((), ()))
    runtime = ("litert", "xnnpack") if graph.format == "tflite" else ("onnxruntime", "cpu")
    given = {"pieces": None, "runtime": runtime[0], "delegate": runtime[1], **more}
    return Seen(artifact, graph, PHONE, **given)


def rules(found: Seen) -> list[str]:
    return [finding.rule for finding in findings(found)]


def only(found: Seen, rule: str) -> Finding:
    told = [finding for finding in findings(found) if finding.rule == rule]
    assert len(told) == 1, rules(found)
    return told[0]


# ---------------------------------------------------------------- clean files


def test_nothing_stands_out_in_clean_files(tmp_path: Path) -> None:
    floats = Lite("float32").conv("a", "float32").depthwise("b", "float32").write(tmp_path / "f.tflite")
    integers = Lite("float32").op("QUANTIZE", "in", "int8").conv("a").depthwise("b").op("DEQUANTIZE", "out", "float32")
    integers.write(tmp_path / "i.tflite")
    onnx = Onnx().turned("in").conv("a").node("Relu", "r").turned("r").conv("b").turned("b").write(tmp_path / "i.onnx")
    plain = Onnx().conv("a", integer=False).node("Relu", "r").write(tmp_path / "f.onnx")
    for path in (floats, tmp_path / "i.tflite", onnx, plain):
        assert findings(seen(path)) == (), path.name
    assert findings(seen(floats, pieces=((0, 1),), asked="LiteRT")) == ()


def test_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"\x08")
    (tmp_path / "x.tflite").write_bytes(b"TFL3")
    for name in ("x.onnx", "x.tflite"):
        with pytest.raises(InputError):
            read_graph(tmp_path / name)


# ---------------------------------------------------------------- planted faults, .tflite


def test_float_island_is_named_with_the_conversions_around_it(tmp_path: Path) -> None:
    net = (
        Lite().conv("a").op("DEQUANTIZE", "up", "float32").op("EXP", "island", "float32").op("QUANTIZE", "down", "int8")
    )
    path = net.conv("b").write(tmp_path / "m.tflite")
    found = only(seen(path), "float island")
    assert found.layers == ("island", "up", "down") and found.shown_by == "file"
    assert found.text == "1 operator in floating point (1 EXP), with 2 conversions around"
    assert "EXP" in found.advice
    rows = (Row("x", "EXP", 0.2, "delegate", 2), Row("y", "Convert", 0.1, "delegate", 1))
    assert only(seen(path, rows=rows), "float island").share == pytest.approx(0.3)


def test_island_of_no_account_is_not_told(tmp_path: Path) -> None:
    net = (
        Lite().conv("a").op("DEQUANTIZE", "up", "float32").op("EXP", "island", "float32").op("QUANTIZE", "down", "int8")
    )
    path = net.conv("b").write(tmp_path / "m.tflite")
    share = WORTH / 2
    assert rules(seen(path, rows=(Row("x", "EXP", share, "delegate", 2),))) == []
    assert rules(seen(path, rows=(Row("x", "EXP", 2.1 * share, "delegate", 2),))) == ["float island"]
    assert rules(seen(path, timed={2: share})) == []


def test_round_trips_and_rescaling_are_counted(tmp_path: Path) -> None:
    net = Lite().conv("a").op("DEQUANTIZE", "up", "float32").op("QUANTIZE", "down", "int8", scale=0.1)
    path = net.conv("b").op("QUANTIZE", "again", "int8", scale=0.2).conv("c").write(tmp_path / "m.tflite")
    assert only(seen(path), "round trip").layers == ("up", "down")
    assert only(seen(path), "rescaling").layers == ("again",)
    ends = Lite().op("QUANTIZE", "in", "int8", scale=0.1).conv("a").op("QUANTIZE", "out", "int8", scale=0.1)
    assert rules(seen(ends.write(tmp_path / "ends.tflite"))) == []


def test_operators_left_by_the_delegate_are_those_in_no_piece(tmp_path: Path) -> None:
    path = Lite().conv("a").depthwise("b").conv("c").write(tmp_path / "m.tflite")
    rows = (Row("01 DEPTHWISE_CONV_2D", "DEPTHWISE_CONV_2D", 0.6, "built-in", 1),)
    found = only(seen(path, pieces=((0,), (2,)), asked="LiteRT 9 on d", rows=rows), "delegate")
    assert (found.layers, found.share, found.shown_by) == (("b",), 0.6, "runtime")
    assert found.text == (
        "XNNPACK leaves 1 of 3 operators to LiteRT's own kernels (1 DEPTHWISE_CONV_2D) and works in 2 pieces"
    )
    assert found.evidence == "the pieces that LiteRT 9 on d lists"
    assert rules(seen(path, pieces=((0, 1, 2),))) == []


def test_depthwise_of_a_dynamic_file_is_known_without_asking(tmp_path: Path) -> None:
    net = Lite("float32").conv("a", "float32", weights="int8").depthwise("b", "float32", weights="int8")
    path = net.write(tmp_path / "m.tflite")
    assert read_graph(path).scheme == "dynamic"
    found = only(seen(path), "delegate")
    assert found.layers == ("result",) and found.shown_by == "rule" and 'scheme = "int8"' in found.advice
    assert "xnnpack_delegate.cc" in found.evidence
    assert only(seen(path, pieces=((0,),), asked="LiteRT"), "delegate").shown_by == "runtime"


def test_operator_that_is_not_built_in_is_never_taken(tmp_path: Path) -> None:
    path = Lite("float32").conv("a", "float32").op("CUSTOM:Mine", "b", "float32").write(tmp_path / "m.tflite")
    assert only(seen(path), "delegate").text == "XNNPACK takes none of the 1 CUSTOM:Mine, by its rules"
    assert rules(seen(path, runtime="tflite-micro", delegate="none")) == []


def test_file_without_a_delegate_says_so_and_why(tmp_path: Path) -> None:
    path = Lite("int16").conv("a", "int16", weights="int8").write(tmp_path / "m.tflite")
    assert read_graph(path).scheme == "int16x8"
    found = only(seen(path, delegate="none"), "kernels")
    assert "none of 16 bits" in found.text and found.whole


def test_weights_alone_are_smaller_and_no_faster(tmp_path: Path) -> None:
    graph = read_graph(Lite("float32").conv("a", "float32").write(tmp_path / "m.tflite"))
    base = seen(tmp_path / "m.tflite")
    for scheme, told in (("weight_int8", ["weights alone"]), ("float16", ["weights alone"]), ("float32", [])):
        assert rules(replace(base, graph=replace(graph, scheme=scheme))) == told  # type: ignore[arg-type]
    half = replace(base, graph=replace(graph, scheme="float16"), runtime="onnxruntime", delegate="cuda")
    assert rules(half) == []


def test_channels_off_the_tile_cost_what_fills_it_up(tmp_path: Path) -> None:
    """9 channels are computed as 16: 7 of 16 are wasted. Those of the last layer are the classes, and do not count."""
    path = Lite("float32", channels=8).conv("a", "float32", channels=9).conv("b", "float32", channels=9)
    found = only(seen(path.write(tmp_path / "m.tflite")), "tile")
    a, b = 8 * 9, 9 * 9  # times 9 x 64 each
    assert found.layers == ("a",) and found.estimated == pytest.approx((a * 7 / 9) / (a + b + a * 7 / 9))
    assert rules(seen(tmp_path / "m.tflite", tile=9)) == []
    assert rules(seen(tmp_path / "m.tflite", runtime="tensorrt")) == []


def test_amx_computes_64_channels_of_int8_at_once(tmp_path: Path) -> None:
    """16 channels are computed as 64: three more of each. Depthwise, float and built-in kernels are none of AMX's."""
    net = Lite(channels=16).conv("a", channels=16).depthwise("d").conv("b", channels=16).write(tmp_path / "m.tflite")
    found = only(seen(net, tile=16, amx=True), "tile")
    a, d = 16 * 16, 16  # times 9 x 64 each; b's are the classes
    assert found.layers == ("a",) and found.estimated == pytest.approx(3 * a / (2 * a + d + 3 * a))
    assert "no multiple of 64" in found.text and "without it fewer channels take less time" in found.advice
    assert rules(seen(net, tile=16)) == rules(seen(net, tile=16, amx=True, runtime="openvino", delegate="cpu")) == []
    assert "tile" not in rules(seen(net, tile=16, amx=True, delegate="none"))
    floats = Lite("float32", channels=16).conv("a", "float32", channels=16).conv("b", "float32", channels=16)
    assert rules(seen(floats.write(tmp_path / "f.tflite"), tile=16, amx=True)) == []


def test_softmax_alone_is_better_left_out_of_the_file(tmp_path: Path) -> None:
    path = Lite().conv("a").op("SOFTMAX", "s", "int8").write(tmp_path / "m.tflite")
    assert "logits" in only(seen(path, pieces=((0,),), asked="LiteRT"), "delegate").advice


# ---------------------------------------------------------------- planted faults, .onnx


def test_activation_that_is_not_absorbed_keeps_its_convolution_in_float(tmp_path: Path) -> None:
    """Symmetric int8 holds negative numbers, so that a ReLU before it has to be computed; uint8 from 0 on does not."""
    symmetric = np.int8(0)
    net = Onnx().turned("in", zero=symmetric).conv("a").node("Relu", "r").turned("r", zero=symmetric).conv("b")
    found = only(seen(net.turned("b", zero=symmetric).write(tmp_path / "m.onnx")), "float island")
    assert set(found.layers) >= {"a_node", "r_node"} and 'flavour = "asymmetric"' in found.advice
    high = np.float32(6.0)
    for scale, absorbed in ((6 / 255, True), (0.1, False)):  # 0.1 holds 25.5, which a Clip at 6 cuts off
        net = Onnx().turned("in").conv("a")
        net.node("Clip", "c", net.constant("low", np.float32(0)), net.constant("high", high)).turned("c", scale=scale)
        assert ("float island" in rules(seen(net.write(tmp_path / "c.onnx")))) is not absorbed


def test_float_island_of_an_onnx_file_is_named(tmp_path: Path) -> None:
    net = Onnx().turned("in").conv("a").turned("a").node("Exp", "e").node("Sqrt", "s").turned("s").conv("b").turned("b")
    found = only(seen(net.write(tmp_path / "m.onnx")), "float island")
    assert found.layers[:2] == ("e_node", "s_node") and "2 operators in floating point" in found.text


def test_operator_without_an_integer_kernel_is_an_island_whatever_stands_around_it(tmp_path: Path) -> None:
    net = Onnx().turned("in").conv("a").turned("a").node("Exp", "e").turned("e").conv("b").turned("b")
    assert only(seen(net.write(tmp_path / "m.onnx")), "float island").layers == ("e_node", "a_dq_node", "e_q_node")
    net = Onnx().turned("in").conv("a").turned("a").node("Sigmoid", "e").turned("e").conv("b").turned("b")
    assert rules(seen(net.write(tmp_path / "s.onnx"))) == []


def test_types_that_ran_are_believed_before_the_file(tmp_path: Path) -> None:
    net = Onnx().turned("in").conv("a").turned("a").node("Exp", "e").turned("e").conv("b").turned("b")
    path = net.write(tmp_path / "m.onnx")
    rows = (
        Row("a_node", "QLinearConv", 0.5, "CPU", 3, "uint8", "uint8"),
        Row("a_dq_node", "DequantizeLinear", 0.1, "CPU", 5, "uint8", "float"),
        Row("e_node", "Exp", 0.15, "CPU", 6, "float", "float"),
        Row("e_q_node", "QuantizeLinear", 0.05, "CPU", 7, "float", "uint8"),
        Row("in_q_node", "QuantizeLinear", 0.1, "CPU", 0, "float", "uint8"),  # an end of the file: none of the island's
    )
    found = only(seen(path, rows=rows), "float island")
    assert found.share == pytest.approx(0.3) and found.shown_by == "measured"
    assert found.text == "1 node in floating point (1 Exp), with 2 conversions between types"
    unused = (
        *rows,
        Row("a", "FusedConv", 0.1, "CPU", 3, "float", "float"),
        Row("b_node", "Conv", 0.1, "CPU", 10, "float", "float"),
    )
    told = only(seen(path, rows=unused), "float island")
    assert told.text.endswith("; 2 of them have Q/DQ around in the file") and "uint8 activations" in told.advice
    fused = tuple(replace(row, reads="uint8", writes="uint8") for row in rows)
    assert "float island" not in rules(seen(path, rows=fused))
    assert "conversions" in rules(seen(path, rows=fused))


def test_pair_of_conversions_is_a_round_trip(tmp_path: Path) -> None:
    net = Onnx().turned("in").conv("a").turned("a").turned("again", scale=0.2).conv("b").turned("b")
    found = only(seen(net.write(tmp_path / "m.onnx")), "round trip")
    assert found.layers == ("a_dq_node", "again_q_node")


def test_ranges_looked_for_in_each_inference_are_counted(tmp_path: Path) -> None:
    from onnx import helper

    net = Onnx()
    net.nodes.append(helper.make_node("DynamicQuantizeLinear", ["image"], ["q", "s", "z"], "dyn"))
    net.nodes.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["out"], "back"))
    net.last = "out"
    found = only(seen(net.write(tmp_path / "m.onnx")), "dynamic")
    assert found.layers == ("dyn",) and 'scheme = "int8"' in found.advice


def test_nodes_that_a_gpu_left_are_named(tmp_path: Path) -> None:
    path = Onnx().conv("a", integer=False).node("Exp", "e").write(tmp_path / "m.onnx")
    rows = (Row("a_node", "Conv", 0.6, "CUDA", 1), Row("e_node", "Exp", 0.3, "CPU", 2))
    rows += (Row("Memcpy", "MemcpyToHost", 0.1, "CUDA"),)
    found = only(seen(path, rows=rows, delegate="cuda"), "delegate")
    assert found.layers == ("e_node", "Memcpy") and found.share == pytest.approx(0.4)
    assert rules(seen(path, rows=rows)) == []


# ---------------------------------------------------------------- clocks and estimates


def graph_of(count: int) -> Graph:
    nodes = tuple(Node(place, f"layer{place}", "CONV_2D", "float", channels=8) for place in range(count))
    work = {p: Layer(f"layer{p}", "CONV_2D", "convolution", "float32", 1000, 1000) for p in range(count)}
    return Graph("tflite", "float32", nodes, work)


def on(graph: Graph, **more: Any) -> Seen:
    artifact = Artifact("m.tflite", Path("m.tflite"), "tflite", "float32", 1, "", Signature((), ()))
    pieces = (tuple(range(len(graph.nodes))),)
    return Seen(artifact, graph, PHONE, **{"runtime": "litert", "delegate": "xnnpack", "pieces": pieces, **more})


def test_one_layer_that_takes_most_is_told_beside_its_work() -> None:
    rows = tuple(Row(f"r{i}", "Convolution", 0.5 if i == 3 else 0.1, "delegate", i) for i in range(6))
    found = only(on(graph_of(6), rows=rows), "one layer")
    assert found.layers == ("layer3",) and found.share == 0.5 and "with 17% of the MACs" in found.text
    even = tuple(replace(row, share=1 / 6) for row in rows)
    assert rules(on(graph_of(6), rows=even)) == []
    assert rules(on(graph_of(4), rows=(replace(rows[0], share=0.7), *rows[1:4]))) == []  # of few one always leads
    merged = (*rows[:3], replace(rows[3], place=None), *rows[4:])
    assert rules(on(graph_of(6), rows=merged, pieces=((0, 1, 2), (3, 4, 5)))) == []  # added up over both pieces


def test_layers_that_wait_for_memory_are_named_the_slowest_first() -> None:
    graph = graph_of(3)
    kinds = ("memory", "compute", "memory")
    times = tuple(
        LayerTime(f"layer{i}", "CONV_2D", "convolution", ms, kind)
        for i, (ms, kind) in enumerate(zip((2.0, 4.0, 4.0), kinds, strict=True))
    )
    estimate = Estimate(10.0, 5.0, 20.0, "Cortex-A72", 1, "published latencies", times)
    timed, limits = {0: 0.2, 1: 0.4, 2: 0.4}, dict(enumerate(kinds))
    found = only(on(graph, estimate=estimate, timed=timed, limits=limits), "memory")
    assert found.layers == ("layer2", "layer0") and found.estimated == pytest.approx(0.6)
    assert found.shown_by == "estimated" and "Cortex-A72" in found.evidence
    less = replace(estimate, layers=(times[0], times[1], replace(times[2], limit="compute")))
    assert rules(on(graph, estimate=less, timed=timed, limits=limits)) == []


def test_layout_changes_count_where_they_take_time() -> None:
    rows = (Row("t", "Transpose", 0.08, "delegate"), Row("u", "TRANSPOSE", 0.06, "built-in"))
    found = only(on(graph_of(3), rows=rows), "layout")
    assert found.share == pytest.approx(0.14) and "`layout`" in found.advice
    assert rules(on(graph_of(3), rows=rows[:1])) == []
    blocked = only(on(graph_of(3), rows=(Row("r", "ReorderInput", 0.2),)), "layout")
    assert "blocked layout" in blocked.advice


def test_zeros_that_nobody_skips_are_told_with_the_rule() -> None:
    found = only(on(graph_of(3), zeros=Zeros(0.8, 100, 3, 0)), "zeros")
    assert "80% of its weights are zero" in found.text and found.shown_by == "rule"
    assert "packed files alone" in found.text and "xnnpack_delegate.cc" in found.evidence
    assert rules(on(graph_of(3), zeros=Zeros(0.1, 100, 3, 0))) == []
    used = Zeros(0.8, 1000, 10, 0, packed=9, pointwise=0.8, starts=True)
    assert rules(on(graph_of(3), zeros=used)) == []


def test_threads_beyond_the_cores_are_told() -> None:
    assert rules(on(graph_of(3), threads=8)) == ["threads"]  # a Raspberry Pi 4 has 4 cores
    assert rules(on(graph_of(3), threads=4)) == []


# ---------------------------------------------------------------- findings


def test_strongest_finding_comes_first_and_unknown_shares_between() -> None:
    def finding(rule: str, **more: Any) -> Finding:
        return Finding(rule, "x", "do y", "file", "z", **more)

    found = [finding("a", share=0.3), finding("b"), finding("c", whole=True), finding("d", estimated=0.9)]
    speeds = [Speed(each.rule, "", "d", "litert", "xnnpack", 1, (each,)) for each in found]
    clean = Speed("clean", "", "d", "litert", "xnnpack", 1, ())
    assert [speed.artifact for speed, _ in strongest([clean, *speeds])] == ["c", "d", "b", "a"]
    slow = replace(clean, findings=(finding(NO_GAIN, whole=True), found[0]))
    assert [text for _, text in strongest([slow])] == ["x; x (30% of the time). Do y"]
    alone = replace(slow, findings=slow.findings[:1])
    assert [text for _, text in strongest([alone])] == ["x; nothing else stands out"]
    assert finding("a", share=0.3).sentence == "x (30% of the time). Do y"
    assert finding("d", estimated=0.9).sentence == "x (about 90% of the time, estimated). Do y"


def test_long_lists_are_cut() -> None:
    assert named(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more" and named(["a"]) == "a"
    assert counted("aabbbcde") == "3 b, 2 a, 1 c, 1 d and others"
