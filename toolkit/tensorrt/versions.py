"""What a version of TensorRT has: its number as it is written in several places, and the table of what came and went.

Sources: NVIDIA/TensorRT's branches and release notes, the enumerations of the TensorRT 11.4 bindings, the DLA pages of
the 11.3 and 11.4 documentation. Nothing here was tried on a device.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from toolkit.errors import InputError, UnsupportedError
from toolkit.tensorrt.types import Flavour

FLOOR = (8, 5)  # the first with tensors by name and execute_async_v3; JetPack 5.1 has it
# first version -> newest ONNX operator set its parser reads (release notes; 10.0 to 10.14 at least 20)
OPSETS = (((8, 5), 17), ((10, 0), 20), ((10, 15), 24), ((11, 0), 25))
BROKEN: dict[tuple[int, ...], str] = {(10, 2, 0): "10.2.0 is left out by other tools as faulty (not tried here)"}


@dataclass(frozen=True)
class Version:
    """A version of TensorRT: 8.5.2.2, 10.3.0, ... TensorRT-RTX counts from 1 and has the API of TensorRT 11."""

    numbers: tuple[int, ...]
    flavour: Flavour = "tensorrt"

    def __str__(self) -> str:
        name = "TensorRT-RTX" if self.rtx else "TensorRT"
        return f"{name} {'.'.join(map(str, self.numbers))}"

    @property
    def rtx(self) -> bool:
        """Whether it is NVIDIA's edition for RTX GPUs."""
        return self.flavour == "tensorrt_rtx"

    @property
    def api(self) -> tuple[int, ...]:
        """The version of TensorRT whose API it has."""
        return (11, 0) if self.rtx else self.numbers

    @property
    def release(self) -> tuple[int, ...]:
        """The three numbers a serialized engine is checked against when it is loaded."""
        return self.numbers[:3]


@dataclass(frozen=True)
class Abilities:
    """What one version can do. opset: the newest ONNX operator set that is sure to be read."""

    strongly_typed: bool  # types can be the graph's own
    weakly_typed: bool  # builder flags for float16 and int8 exist
    explicit_batch: bool  # networks must be asked for with an explicit batch dimension
    optimization_level: bool
    int64: bool  # before, the parser made int32 of it
    dla: bool  # where the module has one
    opset: int
    note: str = ""


def parse(text: str, flavour: Flavour = "tensorrt") -> Version:
    """A version from "8.5.2.2", "10.3.0-1+cuda12.5", or a banner: "TensorRT v8502", "[TensorRT v101502]"."""
    banner = re.search(r"\bv(\d{4,6})\b", text)
    if banner:
        return Version(_packed(int(banner[1])), flavour)
    dotted = re.search(r"(?<![\d.])\d+(?:\.\d+){1,3}", text)
    if not dotted:
        raise InputError("TensorRT", f"no version can be read from {text.strip()[:60]!r}", "give it as 10.3.0")
    return Version(tuple(int(number) for number in dotted[0].split(".")), flavour)


def abilities(version: Version) -> Abilities:
    """What this version has; UnsupportedError below 8.5, whose Python API is another one."""
    api = version.api
    if api < FLOOR:
        raise UnsupportedError(str(version), "is below 8.5, the first that Edgekit builds for", "use its own trtexec")
    return Abilities(
        strongly_typed=api >= (9,),
        weakly_typed=api < (11,),
        explicit_batch=api < (10,),
        optimization_level=api >= (8, 6),
        int64=api >= (10,),
        dla=not version.rtx and (api < (10, 8) or api >= (11, 4, 1)),  # 10.7 was the last of 10 with it
        opset=max(opset for first, opset in OPSETS if api >= first),
        note=BROKEN.get(version.release, "") if not version.rtx else "",
    )


def _packed(number: int) -> tuple[int, int, int]:
    """NV_TENSORRT_VERSION: major * 1000 + minor * 100 + patch up to 9, major * 10000 from 10 on."""
    major, rest = divmod(number, 10000 if number >= 100000 else 1000)
    return major, rest // 100, rest % 100
