"""Ranges to encodings, by hand: scales, operators of one scale, prescribed outputs, floors of kernels."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.core import Scheme
from toolkit.errors import UnsupportedError
from toolkit.exporters.tflite_encodings import Bounds, resolve, scale_of
from toolkit.exporters.tflite_file import File, Operator, Tensor


def tensor(name: str) -> Tensor:
    return Tensor(name, (1, 4), "float32")


def chain(*steps: tuple[str, str, str]) -> File:
    """(kind, "input input ...", output) of each operator."""
    known: dict[str, Tensor] = {}
    operators = []
    for kind, reads, gives in steps:
        inputs = tuple(known.setdefault(name, tensor(name)) for name in reads.split())
        operators.append(Operator(kind, inputs, (known.setdefault(gives, tensor(gives)),)))
    return File(tuple(operators), (("x", known["x"]),), ())


def bounds(file: File, scheme: Scheme = "int8", **ranges: Bounds) -> dict[str, Bounds]:
    every = {t.name: (0.0, 1.0) for op in file.operators for t in (*op.inputs, *op.outputs) if t} | ranges
    return dict(resolve(file, every, (scheme,) * len(file.operators), "per_channel").bounds)


def test_scales_are_those_of_the_specification() -> None:
    assert scale_of((-1.0, 3.0), 8) == (4 / 255, -64)  # -128 + 1 * 255 / 4 = -64.25
    assert scale_of((0.0, 255.0), 8) == (1.0, -128)
    assert scale_of((-2.0, 1.0), 16) == (2 / 32767, 0)


def test_range_is_widened_to_hold_zero_and_more_than_nothing() -> None:
    file = chain(("MEAN", "x", "y"))
    found = bounds(file, x=(2.0, 5.0), y=(0.0, 0.0))
    assert found == {"x": (0.0, 5.0), "y": (0.0, 1e-6)}
    with pytest.raises(UnsupportedError, match=r"^y: has no finite range"):
        bounds(file, y=(0.0, float("nan")))


def test_what_is_passed_on_has_the_range_it_came_with() -> None:
    file = chain(("MAX_POOL_2D", "x", "a"), ("RESHAPE", "a", "b"), ("MEAN", "b", "c"))
    found = bounds(file, x=(-1.0, 2.0), c=(0.0, 0.5))
    assert (found["a"], found["b"], found["c"]) == ((-1.0, 2.0), (-1.0, 2.0), (0.0, 0.5))


def test_joined_tensors_take_the_range_of_what_joins_them_all() -> None:
    """Two joins by way of one tensor; a pooled one lies behind."""
    file = chain(("CONCATENATION", "x y", "j"), ("CONCATENATION", "j z", "k"), ("MAX_POOL_2D", "k", "p"))
    found = bounds(file, x=(-1.0, 1.0), y=(0.0, 2.0), j=(-1.0, 2.0), z=(0.0, 9.0), k=(-1.0, 9.0))
    assert {found[name] for name in "xyjzkp"} == {(-1.0, 9.0)}


def test_prescribed_outputs_keep_their_range_where_they_are_joined() -> None:
    file = chain(("LOGISTIC", "x", "s"), ("RESHAPE", "s", "r"), ("CONCATENATION", "r x", "j"))
    found = bounds(file, x=(-4.0, 4.0), j=(-4.0, 4.0))
    assert found["s"] == found["r"] == (0.0, 255 / 256)
    assert found["j"] == found["x"] == (-4.0, 4.0)
    assert bounds(chain(("TANH", "x", "t")))["t"] == (-1.0, 127 / 128)
    assert bounds(chain(("SOFTMAX", "x", "t")), "int16x8")["t"] == (-32767 / 32768, 32767 / 32768)


def test_split_passes_on_its_second_operand() -> None:
    axis = Tensor("axis", (), "int32", data=np.zeros((), np.int32))
    file = File((Operator("SPLIT", (axis, tensor("x")), (tensor("a"), tensor("b"))),), (("x", tensor("x")),), ())
    assert bounds(file, x=(-3.0, 1.0)) == {"axis": (0.0, 1.0), "x": (-3.0, 1.0), "a": (-3.0, 1.0), "b": (-3.0, 1.0)}


def test_float_operators_tie_nothing() -> None:
    file = chain(("MAX_POOL_2D", "x", "a"))
    assert bounds(file, "float32", x=(-1.0, 2.0))["a"] == (0.0, 1.0)


def test_sixteen_bit_sum_is_kept_off_powers_of_two() -> None:
    found = bounds(chain(("ADD", "x y", "z")), "int16x8", z=(-1.0, 1.0))
    power = np.log2(found["z"][1] / 32767)
    assert 1e-3 < abs(power - round(power)) < 1e-2
    assert bounds(chain(("ADD", "x y", "z")), "int16x8", z=(-1.3, 1.0))["z"] == (-1.3, 1.0)


def dense(weights: list[list[float]], bias: list[float]) -> File:
    kernel = Tensor("w", (len(weights), len(weights[0])), "float32", data=np.array(weights, np.float32))
    shift = Tensor("b", (len(bias),), "float32", data=np.array(bias, np.float32))
    operator = Operator("FULLY_CONNECTED", (tensor("x"), kernel, shift), (tensor("y"),))
    return File((operator,), (("x", tensor("x")),), (("y", tensor("y")),))


def test_weight_scale_is_raised_until_the_bias_fits() -> None:
    """Input scale 1: a bias of 3 in at most 2^30 steps wants a weight scale of 3 / 2^30; the other channel stays."""
    found = resolve(
        dense([[0.0, 0.0], [1.27, 0.0]], [3.0, 3.0]), {"x": (0, 255), "y": (0, 255)}, ("int8",), "per_channel"
    )
    np.testing.assert_allclose(found.weight_scales["w"], [3 / 2**30, 0.01], rtol=1e-6)
    assert found.notes == (("y", "1 channels have a coarser weight scale, so that their bias fits int32"),)


def test_range_is_widened_until_one_product_is_a_hundred_and_twenty_eight_steps() -> None:
    """Input scale 1, weight scale 0.01: the output's scale is at least 0.01 / 128."""
    found = resolve(dense([[1.27]], [0.0]), {"x": (0, 255), "y": (0.0, 0.0)}, ("int8",), "per_channel")
    assert found.bounds["y"] == pytest.approx((0.0, 255 * 0.01 / 128))
