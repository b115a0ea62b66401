"""The linter's rules on graphs drawn by hand: what is found, and counts that were counted by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from drawn import Drawing, good
from onnx import TensorProto, helper

from toolkit.tensorrt.lint import lint
from toolkit.tensorrt.lint_text import lines
from toolkit.tensorrt.lint_types import Counts, Report
from toolkit.tensorrt.types import Target

FLOAT16 = TensorProto.FLOAT16


def target(version: str, capability: str = "") -> Target:
    return Target(tensorrt=version, compute_capability=capability, device="", platform="")


def looked_at(model: Any, version: str = "", capability: str = "") -> Report:
    inferred = onnx.shape_inference.infer_shapes(model)
    return lint(inferred, target=target(version, capability) if version or capability else None)


def rules(report: Report, severity: Any = "slow") -> Counter[str]:
    return Counter(finding.rule for finding in report.of(severity))


def fates(report: Report) -> dict[str, tuple[str, int]]:
    return {pair.tensor: (pair.fate, pair.reformats) for pair in report.pairs if pair.fate != "weights"}


# ---------------------------------------------------------------- a good placement


@pytest.mark.parametrize("options", [{}, {"batch": "n"}, {"opset": 19, "kind": FLOAT16}])
def test_good_placement_has_nothing_slow_and_nothing_refused(options: dict[str, Any]) -> None:
    report = looked_at(good(**options))
    assert not report.of("refused")
    assert not report.of("slow")


def test_good_placement_is_counted() -> None:
    """Stem in float; then three int8 convolutions and the dense layer; the stem's output and the mean are converted."""
    report = looked_at(good())
    assert report.counts == Counts(4, 3, 1, 1, reformats=2, islands=0)
    assert [layer.where for layer in report.left] == ["Conv stem", "GlobalAveragePool pool"]
    assert sum(pair.fate == "weights" for pair in report.pairs) == 4
    assert list(fates(report).values()) == [("fused", 1), ("fused", 0), ("fused", 0), ("fused", 1)]


def test_words_say_who_writes_and_who_reads() -> None:
    words = [pair.words for pair in looked_at(good()).pairs if pair.fate == "fused"]
    assert (
        words[0] == "written in floating point by Conv stem and converted to int8, read as int8 by Conv first, Add add"
    )
    assert words[1] == "written as int8 by Conv first, read as int8 by Conv second"
    assert words[2] == "written as int8 by Conv second, read as int8 by Conv third"


def test_files_without_pairs_have_no_counts_of_int8_and_no_summary() -> None:
    draw = Drawing()
    report = looked_at(draw.model(draw.conv("x", qdq=False)))
    assert report.counts == Counts(1, 0)
    assert (report.pairs, report.left, report.summary) == ((), (), ())
    assert rules(report, "note") == {"float32-rest": 1}
    draw = Drawing(kind=FLOAT16)
    report = looked_at(draw.model(draw.conv("x", qdq=False)))
    assert (report.floats, report.findings) == ("float16", ())


# ---------------------------------------------------------------- the seven recommendations


def drawn(build: Any, **options: Any) -> Report:
    draw = Drawing(**options)
    return looked_at(draw.model(build(draw)))


def test_weighted_layers_want_pairs_on_both_inputs() -> None:
    assert rules(drawn(lambda d: d.conv("x"))) == {"weights-only": 1}
    assert rules(drawn(lambda d: d.conv(d.pair("x"), qdq=False))) == {"input-only": 1, "island": 1}
    assert rules(drawn(lambda d: d.conv(d.pair("x")))) == {}
    assert rules(drawn(lambda d: d.conv("x", qdq=False))) == {}


def test_pair_between_a_convolution_and_its_activation_keeps_them_apart() -> None:
    report = drawn(lambda d: d.conv(d.pair(d.node("Relu", d.pair(d.conv(d.pair("x"), name="a"), 0.1))), name="b"))
    assert rules(report) == {"not-fused": 1}
    assert report.of("slow")[0].what.startswith("a kernel of its own: the pair between it and Conv a")


def residual(draw: Drawing, *, branch: bool, shortcut: bool) -> str:
    x = draw.pair("x")
    first = draw.conv(x, name="a")
    kept = x if shortcut else "x"
    return str(draw.node("Add", draw.pair(first, 0.1) if branch else first, kept, name="sum"))


@pytest.mark.parametrize(
    ("branch", "shortcut", "expected"),
    [
        (False, True, {}),
        (True, True, {"sum-not-fused": 1}),
        (False, False, {"shortcut-float": 1}),
        (True, False, {"sum-not-fused": 1}),
    ],
)
def test_sums_want_a_pair_on_the_shortcut_alone(branch: bool, shortcut: bool, expected: dict[str, int]) -> None:
    report = drawn(lambda d: residual(d, branch=branch, shortcut=shortcut))
    assert rules(report) == Counter(expected)


def test_sum_of_two_convolutions_wants_a_pair_on_one_of_them() -> None:
    def block(draw: Drawing) -> str:
        x = draw.pair("x")
        return str(draw.node("Add", draw.conv(x, name="a"), draw.pair(draw.conv(x, name="b")), name="sum"))

    report = drawn(block)
    assert rules(report) == {}
    assert report.counts == Counts(2, 2, reformats=1)  # the input


@pytest.mark.parametrize("kind", ["GlobalAveragePool", "AveragePool"])
def test_means_with_int8_in_want_int8_out(kind: str) -> None:
    options = {"kernel_shape": [2, 2]} if kind == "AveragePool" else {}
    assert rules(drawn(lambda d: d.node(kind, d.pair("x"), name="mean", **options))) == {"float-out": 1}
    whole = drawn(lambda d: d.conv(d.pair(d.node(kind, d.pair("x"), name="mean", **options), 0.1), kernel=1))
    assert rules(whole) == {}
    assert fates(whole)["mean:0"] == ("fused", 0)


def test_product_with_one_quantized_side_is_named() -> None:
    report = drawn(lambda d: d.node("Mul", d.pair("x"), d.node("Sigmoid", "x"), name="gate"))
    assert rules(report) == {"plain-mixed": 1}


def test_joins_want_one_scale_everywhere() -> None:
    def joined(second: float | None, draw: Drawing) -> str:
        other = "x" if second is None else draw.pair("x", second)
        return draw.conv(draw.pair(draw.node("Concat", draw.pair("x"), other, axis=1), 0.2), (32, 16))

    assert rules(drawn(lambda d: joined(0.05, d))) == {}
    assert rules(drawn(lambda d: joined(None, d))) == {"concat-mixed": 1}
    alone = drawn(lambda d: d.node("Sigmoid", d.node("Concat", d.pair(d.conv(d.pair("x"))), "x", axis=1)))
    assert not rules(alone)["concat-mixed"]  # floating point is wanted of it
    assert rules(drawn(lambda d: joined(0.1, d)))["concat-scales"] == 1


def test_pair_that_nothing_computes_with_is_an_island() -> None:
    report = drawn(lambda d: d.node("Softmax", d.pair(d.node("Sigmoid", "x", name="gate"))))
    assert rules(report) == {"island": 1}
    assert fates(report) == {"gate:0": ("island", 2)}
    assert (report.counts.islands, report.counts.reformats) == (1, 2)


def test_lone_int8_convolution_amid_floats_is_an_island() -> None:
    def three(draw: Drawing) -> str:
        first = draw.conv("x", name="a", qdq=False)
        return draw.conv(draw.conv(draw.pair(first), name="b"), name="c", qdq=False)

    report = drawn(three)
    assert rules(report) == {"lone-int8": 1}
    assert report.counts == Counts(3, 1, reformats=1, islands=1)


def test_activations_want_one_scale() -> None:
    report = drawn(lambda d: d.conv(d.pair("x", np.full(16, 0.05), axis=1)))
    assert rules(report) == {"activation-per-channel": 1, "weights-only": 1}


@pytest.mark.parametrize(
    ("channels", "kernel", "group", "small"),
    [
        ((16, 16), 3, 1, False),
        ((3, 16), 3, 1, False),  # the first one, aligned on its outputs
        ((3, 12), 3, 1, True),
        ((16, 16), 3, 16, False),  # depthwise
        ((12, 12), 3, 12, True),
        ((16, 16), 1, 16, True),
    ],
)
def test_convolutions_that_fill_no_tile_are_named(
    channels: tuple[int, int], kernel: int, group: int, small: bool
) -> None:
    report = drawn(lambda d: d.conv(d.pair("x"), channels, kernel=kernel, group=group), shape=(1, channels[0], 8, 8))
    assert rules(report) == ({"small": 1} if small else {})


def test_dense_layers_that_fill_no_tile_are_named() -> None:
    assert rules(drawn(lambda d: d.dense(d.pair("x"), (16, 10)), shape=(4, 16))) == {"small": 1}
    assert rules(drawn(lambda d: d.dense(d.pair("x"), (16, 16)), shape=(4, 16))) == {}
    assert rules(drawn(lambda d: d.dense(d.pair("x"), (16, 16), axis=1), shape=(4, 16)))["weight-axis"] == 1


def test_batch_normalization_behind_quantized_weights_is_named() -> None:
    def build(draw: Drawing) -> str:
        ones = [draw.constant(np.ones(16, np.float32)) for _ in range(4)]
        return str(draw.node("BatchNormalization", draw.conv(draw.pair("x")), *ones))

    assert rules(drawn(build)) == {"batch-norm": 1}


def test_tensor_with_two_scales_is_named() -> None:
    report = drawn(lambda d: d.node("Add", d.conv(d.pair("x"), name="a"), d.conv(d.pair("x", 0.1), name="b")))
    assert rules(report)["several-scales"] == 1


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ("8.2.1", True),
        ("8.5.2", True),
        ("8.6", True),
        ("10.0", False),
        ("10.3.0", False),
        ("10.16.2", False),
        ("11.4", False),
    ],
)
def test_operator_set_19_is_too_new_for_tensorrt_8(version: str, refused: bool) -> None:
    report = looked_at(good(opset=19, kind=FLOAT16), version)
    assert [finding.rule for finding in report.of("refused")] == (["opset"] if refused else [])


def test_without_a_target_a_new_operator_set_is_a_note() -> None:
    assert rules(looked_at(good(opset=19, kind=FLOAT16)), "note") == {"opset": 1}


@pytest.mark.parametrize(("version", "severity"), [("8.5", "note"), ("10.3", "note"), ("11.1", "slow")])
def test_float32_beside_int8_is_slow_where_types_hold(version: str, severity: Any) -> None:
    assert rules(looked_at(good(), version), severity)["float32-rest"] == 1


@pytest.mark.parametrize(("capability", "refused"), [("5.3", True), ("6.2", True), ("7.2", False), ("8.7", False)])
def test_devices_without_int8_kernels_refuse_int8_files(capability: str, refused: bool) -> None:
    report = looked_at(good(opset=13), "8.2.1", capability)
    assert rules(report, "refused") == ({"no-int8": 1} if refused else {})


# ---------------------------------------------------------------- notes


def test_free_shapes_need_a_profile() -> None:
    (note,) = [each for each in looked_at(good(batch="n")).of("note") if each.rule == "profile"]
    assert note.where == "input x"
    assert "?x3x8x8" in note.what
    assert "--minShapes=x:" in note.fix


def test_stored_integers_are_not_verified_on_tensorrt_8() -> None:
    def build(draw: Drawing) -> str:
        ends = draw.constant(np.full(16, 0.02, np.float32)), draw.constant(np.zeros(16, np.int8))
        weight = draw.node("DequantizeLinear", draw.constant(np.ones((16, 16, 3, 3), np.int8)), *ends, axis=0)
        return str(draw.node("Conv", draw.pair("x"), weight))

    draw = Drawing()
    model = draw.model(build(draw))
    assert rules(looked_at(model, "8.6"), "note")["dequantize-only"] == 1
    assert rules(looked_at(model, "10.3"), "note")["dequantize-only"] == 0
    assert looked_at(model).counts.int8_convolutions == 1


def test_numbers_that_float16_does_not_have_are_named() -> None:
    draw = Drawing()
    report = looked_at(draw.model(draw.node("Add", "x", draw.constant(np.float32(70000)), name="big")))
    assert [(each.where, each.what) for each in report.of("note") if each.rule == "float16-range"] == [
        ("Add big", "a constant of 7e+04: float16 ends at 65504")
    ]
    draw = Drawing()
    report = looked_at(draw.model(draw.node("Add", "x", draw.constant(np.float32(65504)))))
    assert not rules(report, "note")["float16-range"]


def test_wide_inputs_and_channels_last_are_noted() -> None:
    draw = Drawing(shape=(1, 8, 8, 16))
    report = looked_at(draw.model(draw.conv(draw.node("Transpose", "x", perm=[0, 3, 1, 2]), qdq=False)))
    assert rules(report, "note")["layout"] == 1
    draw = Drawing()
    draw.inputs[:] = [helper.make_tensor_value_info("x", TensorProto.INT64, (1, 16, 8, 8))]
    assert rules(looked_at(draw.model(draw.node("Cast", "x", to=1))), "note")["wide-input"] == 1


def test_uint8_without_offset_is_a_note() -> None:
    report = drawn(lambda d: d.conv(d.pair("x", kind=np.uint8)))
    assert rules(report, "note")["unsigned"] == 1
    assert not report.of("refused")


def test_transposed_convolution_with_many_scales_is_fragile() -> None:
    def build(count: int, draw: Drawing) -> str:
        scale: Any = np.full(count, 0.02) if count > 1 else 0.02
        axis = {"axis": 1} if count > 1 else {}
        return str(draw.node("ConvTranspose", draw.pair("x"), draw.pair(draw.weights(16, 16, 3, 3), scale, **axis)))

    assert rules(drawn(lambda d: build(16, d)), "note")["transposed-scales"] == 1
    assert rules(drawn(lambda d: build(1, d)), "note")["transposed-scales"] == 0


# ---------------------------------------------------------------- odd files, and text


def test_circle_is_refused_and_nothing_else_is_said() -> None:
    draw = Drawing()
    draw.nodes += [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    report = lint(draw.model("b"))
    assert [finding.rule for finding in report.findings] == ["circle"]


def test_operators_of_older_sets_have_fewer_inputs() -> None:
    draw = Drawing(opset=11)
    assert not looked_at(draw.model(draw.node("Unsqueeze", "x", axes=[0]))).of("refused")
    draw = Drawing(opset=13)
    draw.nodes.append(helper.make_node("Unsqueeze", ["x"], ["y"], name="early"))
    (finding,) = lint(draw.model("y")).findings
    assert (finding.rule, finding.where) == ("malformed", "Unsqueeze early")


def test_constants_of_no_known_type_are_no_crash() -> None:
    draw = Drawing()
    model = draw.model(draw.conv(draw.pair("x")))
    for tensor in model.graph.initializer:
        tensor.data_type = 99
    assert lint(model).counts.convolutions == 1


def test_empty_file_has_nothing_to_say() -> None:
    assert lint(onnx.ModelProto()).counts == Counts()


def test_deep_networks_are_no_trouble() -> None:
    draw = Drawing()
    x = draw.pair("x")
    for _ in range(1500):
        x = draw.node("Relu", draw.node("Identity", x))
    for _ in range(1500):
        x = draw.node("Identity", x)
    assert lint(draw.model(draw.dense(draw.node("Flatten", x), (1024, 16), qdq=False))).counts.products == 1


def test_file_is_left_as_it_is() -> None:
    model = good()
    before = model.SerializeToString()
    lint(model)
    assert model.SerializeToString() == before


def test_node_order_does_not_matter() -> None:
    model = good()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    assert lint(model).counts == lint(good()).counts


def test_text_names_a_few_of_a_rule_and_counts_the_rest() -> None:
    draw = Drawing()
    x = "x"
    for index in range(8):
        x = draw.conv(x, name=f"c{index}")
    text = "\n".join(lines(looked_at(draw.model(x))))
    assert text.startswith("TensorRT: 0 of 8 convolutions in int8; 0 conversions")
    assert "and 3 more [weights-only]" in text
    assert "8 of 8 convolutions compute in floating point (8: its weights have Q/DQ and its input has none" in text


def test_text_of_many_pairs_names_those_that_cost_something() -> None:
    draw = Drawing()
    x = "x"
    for index in range(40):
        x = draw.conv(draw.pair(x), name=f"c{index}")
    text = "\n".join(lines(looked_at(draw.model(draw.node("Softmax", x, name="end")))))
    assert "1 conversion between int8 and floating point; 0 islands" in text
    assert "    x (fused): the network's input, converted to int8, read as int8 by Conv c0" in text
    assert "    39 more (fused): written and read as int8" in text
    assert "    Softmax end: it has no int8 form that is worth it" in text


def test_refused_file_says_so_first() -> None:
    report = drawn(lambda d: d.conv(d.pair("x", zero=3)))
    assert next(lines(report)).startswith("TensorRT: is refused; ")
    assert report.summary == ("no engine: 2 findings that the parser or builder ends at",)
