"""What the kernels of a device make of a request: the same scheme with other integers, or a refusal, before any work.

Facts stand in the device's profile; this machine's own processor is read from /proc/cpuinfo.
Page: onnxruntime.ai, "Quantize ONNX models" (when to use reduced range on x86).
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from toolkit.core import STATIC, QuantSpec
from toolkit.devices import DeviceProfile, DeviceRuntime
from toolkit.hardware import KernelFact

X86 = ("x86_64", "AMD64", "i686")
DOT_PRODUCTS = frozenset(["avx512_vnni", "avx_vnni"])  # instructions that add products in 32 bits
CPUINFO = Path("/proc/cpuinfo")


def adapted(quant: QuantSpec, targets: Sequence[tuple[DeviceProfile, DeviceRuntime]]) -> tuple[QuantSpec, list[str]]:
    """The request as all these devices can compute it rightly, and a note on each change."""
    notes = []
    for profile, runtime in targets:
        for known in needs(profile, runtime):
            if known.fact == "saturating" and _is_exposed(quant) and not quant.reduce_range:
                quant = replace(quant, reduce_range=True)
                notes.append(_note(profile, runtime, known, "adds products of 8 bits in 16: weights are 7-bit"))
            asked = quant.scheme not in ("float32", "float16") and quant.granularity == "per_channel"
            if known.fact == "dense_per_tensor" and asked and not quant.dense_per_tensor:
                quant = replace(quant, dense_per_tensor=True)
                notes.append(
                    _note(profile, runtime, known, "takes one scale for a dense layer's weights: they get one")
                )
    return quant, notes


def refusals(quant: QuantSpec, targets: Sequence[tuple[DeviceProfile, DeviceRuntime]]) -> list[str]:
    """Why these devices cannot take files of this request, and what to set."""
    fix = 'Fix: set flavour = "symmetric" in its quantize or qat pass'
    return [
        f"{profile.name}: {runtime.use} reads symmetric int8 activations (zero point 0) and no others "
        f"({known.source}). {fix}"
        for profile, runtime in targets
        if (known := runtime.needs("symmetric_only")) and _is_exposed(quant)
    ]


def needs(profile: DeviceProfile, runtime: DeviceRuntime) -> tuple[KernelFact, ...]:
    """What holds of a runtime on a device: its profile's facts, and what this machine's processor tells of itself."""
    found = [known for fact in ("saturating", "dense_per_tensor") if (known := runtime.needs(fact))]
    here = profile.transport == "local" and runtime.use == "onnxruntime"
    if here and not runtime.needs("saturating") and saturates(platform.machine(), flags()):
        found.append(KernelFact(fact="saturating", source=f"{CPUINFO} names neither avx512_vnni nor avx_vnni"))
    return tuple(found)


def saturates(machine: str, flags: frozenset[str]) -> bool | None:
    """Whether ONNX Runtime's uint8 x int8 kernels overflow on such a processor; None where it cannot be told."""
    if machine not in X86:
        return False
    return not flags & DOT_PRODUCTS if flags else None


def flags(path: Path = CPUINFO) -> frozenset[str]:
    """Instruction-set flags of this machine; empty where there are none to read."""
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _is_exposed(quant: QuantSpec) -> bool:
    """uint8 activations times int8 weights, in any layer."""
    schemes = {quant.scheme, *(scheme for _, scheme in quant.layers)}
    return bool(schemes & set(STATIC)) and quant.flavour == "asymmetric"


def _note(profile: DeviceProfile, runtime: DeviceRuntime, known: KernelFact, what: str) -> str:
    return f"{profile.name}: {runtime.use} {what} ({known.source})"
