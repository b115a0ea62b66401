"""What pruning needs to know of devices: where latency counts, and how many channels their kernels compute together.

Widths that are no multiple of that cost as much as the next one: XNNPACK's float32 kernels make 8 channels at once on
Arm and 16 with AVX-512 (its f32-gemm 6x8 and 7x16 micro-kernels); an Ethos-U stores 16 (Vela's NHCWB16 format);
TensorRT's int8 format for Tensor Cores holds 32 (TensorFormat::kCHW32 in its API reference).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit import kernels, registry
from toolkit.core import MeasureSpec
from toolkit.devices import DeviceProfile, load_device
from toolkit.errors import EdgekitError, InputError, UnsupportedError

if TYPE_CHECKING:
    from toolkit.recipe import Recipe

USUAL, AVX512, ETHOS_U, TENSORRT = 8, 16, 16, 32
FORMATS = ("tflite", "onnx")  # of candidates, the preferred first


@dataclass(frozen=True)
class Needs:
    """For one pass: the device whose latency counts, None for none, how it is timed, and the multiple of channels."""

    profile: DeviceProfile | None = None
    measure: MeasureSpec = MeasureSpec()
    multiple: int = USUAL


def needs(recipe: Recipe, component: Any) -> Needs:
    """What a pass needs; InputError for a device that there is not."""
    name = getattr(component, "device", "")
    target = next((item for item in recipe.targets if name and name in (item.profile.name, item.device)), None)
    profile = target.profile if target else load_device(name) if name else None
    profiles = [profile] if profile else [item.profile for item in recipe.targets]
    multiple = max(map(multiple_of, profiles), default=USUAL) if profile or _asks(component) else USUAL
    measure = target.measure if target else profile.measure if profile else MeasureSpec()
    return Needs(profile, measure, multiple)


def _asks(component: Any) -> bool:
    return getattr(component, "round_to", None) == "auto"


def said(component: Any, found: Needs) -> tuple[Any, ...]:
    """What of it decides on what comes out, for the content key of a stage; nothing where nothing is asked."""
    place = (found.profile.model_dump(mode="json"), found.measure.model_dump()) if found.profile else ()
    return (*place, *((found.multiple,) if place or _asks(component) else ()))


def multiple_of(profile: DeviceProfile) -> int:
    """Channels that the kernels of a device compute together."""
    if any(processor.vela for processor in profile.processors):
        return ETHOS_U
    if profile.runtimes[0].use == "tensorrt":
        return TENSORRT
    isa = {name for processor in profile.processors for name in processor.isa}
    here = kernels.flags() if profile.transport == "local" and not profile.emulated else frozenset()
    return AVX512 if any(name.startswith("avx512") for name in isa | here) else USUAL


def has_amx(profile: DeviceProfile) -> bool:
    """Whether it is this machine, and its processor has AMX, which XNNPACK then computes int8 with."""
    return profile.transport == "local" and not profile.emulated and "amx_int8" in kernels.flags()


def problems(recipe: Recipe, component: Any) -> Iterator[str]:
    """Why the latency of a candidate cannot be told."""
    try:
        found = needs(recipe, component)
        if found.profile is not None and _asks_latency(component):
            _check(found.profile, found.measure)
    except EdgekitError as error:
        yield f"device: {error}"


def _check(profile: DeviceProfile, measure: MeasureSpec) -> None:
    """Raise where candidates can be neither timed nor estimated."""
    runtime_of(profile)
    if timed(profile):
        if not measure.processes:
            raise InputError("measure.processes", "0 processes measure nothing", "ask for 1 or more")
    elif not profile.processors:
        problem = "its latency can be neither measured from here nor estimated (no [[processors]])"
        raise UnsupportedError(profile.name, problem, "name another device")
    elif profile.processors[0].vela:
        problem = "candidates are float32 files, and an Ethos-U computes int8 alone"
        raise UnsupportedError(profile.name, problem, "set a share of the macs, or of the size")


def timed(profile: DeviceProfile) -> bool:
    """Whether its latency is measured from here: within reach, itself, and in a runtime that tells."""
    runtime = registry.load("runtimes", runtime_of(profile)[1])
    return profile.measurable and not profile.emulated and bool(getattr(runtime, "timed", True))


def notes(recipe: Recipe, component: Any) -> Iterator[str]:
    """How the latency of candidates is told, which multiple `auto` is, and what steps are weighed by."""
    try:
        found = needs(recipe, component)
        if found.profile is not None and _asks_latency(component):
            _check(found.profile, found.measure)
    except EdgekitError:
        return  # a problem, said as such
    if _asks(component):
        yield f'prune: round_to = "auto" is {found.multiple} here'
    if found.profile is not None and _asks_latency(component):
        how = "measured" if timed(found.profile) else "estimated, not measured"
        yield f"prune: latency on {found.profile.name} is {how}, of float32 files"
    if found.profile is not None and getattr(component, "weighs_tiles", False):
        kernels_of = f"kernels of {found.profile.name} compute, {found.multiple} channels at once"
        yield f"prune: steps are weighed by what {kernels_of}"


def _asks_latency(component: Any) -> bool:
    return any(getattr(component, name, None) is not None for name in ("latency", "latency_ms"))


def runtime_of(profile: DeviceProfile) -> tuple[str, str, str]:
    """(format, runtime, delegate) that a float32 candidate is run with there; UnsupportedError where there is none."""
    for form in FORMATS:
        for runtime in profile.runtimes:
            if form in runtime.formats and "float32" in runtime.schemes:
                return form, runtime.use, runtime.delegates[0] if runtime.delegates else "none"
    raise UnsupportedError(profile.name, "runs no float32 file, which candidates are", "name another device")
