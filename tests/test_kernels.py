"""What processors tell of themselves, and how a request follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit import kernels
from toolkit.core import QuantSpec
from toolkit.devices import DeviceProfile, DeviceRuntime, KernelFact

INT8 = QuantSpec("int8")


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", {"sse4_1", "avx2"}, True),
        ("x86_64", {"avx2", "avx512f", "avx512_vnni"}, False),
        ("AMD64", {"avx2", "avx_vnni"}, False),
        ("x86_64", set(), None),
        ("aarch64", {"asimd"}, False),
    ],
)
def test_processors_without_32_bit_dot_products_saturate(machine: str, flags: set[str], expected: bool | None) -> None:
    assert kernels.saturates(machine, frozenset(flags)) is expected


def test_flags_are_those_of_the_first_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert kernels.flags(tmp_path / "cpuinfo") == {"fpu", "avx2"}
    assert kernels.flags(tmp_path / "none") == frozenset()


def profile(transport: str, *known: KernelFact, use: str = "onnxruntime") -> tuple[DeviceProfile, DeviceRuntime]:
    runtime = DeviceRuntime(use=use, formats=("onnx",), schemes=("int8",), kernels=known)
    return DeviceProfile(name="box", arch="any", transport=transport, runtimes=(runtime,)), runtime


def test_this_machine_is_asked_and_other_devices_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "flags", lambda: frozenset(["avx2"]))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    quant, notes = kernels.adapted(INT8, [profile("local")])
    assert quant.reduce_range
    assert notes == [
        "box: onnxruntime adds products of 8 bits in 16: weights are 7-bit "
        "(/proc/cpuinfo names neither avx512_vnni nor avx_vnni)"
    ]
    assert kernels.adapted(INT8, [profile("")]) == (INT8, [])
    assert kernels.adapted(INT8, [profile("local", use="litert")]) == (INT8, [])
    monkeypatch.setattr(kernels, "flags", lambda: frozenset(["avx2", "avx_vnni"]))
    assert kernels.adapted(INT8, [profile("local")]) == (INT8, [])


def test_request_serves_all_devices_and_says_each_change_once() -> None:
    known = KernelFact(fact="saturating", source="a page")
    quant, notes = kernels.adapted(INT8, [profile("", known), profile("", known), profile("")])
    assert quant == QuantSpec("int8", reduce_range=True)
    assert len(notes) == 1


def test_one_scale_for_dense_layers_says_nothing_where_all_weights_have_one() -> None:
    known = KernelFact(fact="dense_per_tensor", source="a page")
    assert kernels.adapted(INT8, [profile("", known)])[0].dense_per_tensor
    whole = QuantSpec("int8", "per_tensor")
    assert kernels.adapted(whole, [profile("", known)]) == (whole, [])
