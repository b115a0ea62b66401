"""What a target asks of a file: how new its operators may be, whether its types hold, whether int8 exists."""

from __future__ import annotations

import re
from dataclasses import dataclass

from toolkit.tensorrt import versions
from toolkit.tensorrt.types import Target

OLDER = 13  # operator set of what is older than versions.OPSETS: that of TensorRT 7.2's page; of 8.2 unverified
NO_INT8 = ("5.3", "6.0", "6.2")  # no int8 in TensorRT's support matrix, table of precisions


@dataclass(frozen=True)
class Wants:
    """Of a target; None where nothing is known, as of a file for no target in particular."""

    name: str = "TensorRT"
    major: int | None = None
    opset: int | None = None
    capability: str = ""
    rtx: bool = False

    @property
    def strong(self) -> bool:
        """Whether an engine has the graph's own types whatever is asked (TensorRT 11, RTX)."""
        return self.rtx or (self.major is not None and self.major >= 11)

    @property
    def no_int8(self) -> bool:
        return self.capability in NO_INT8


def wants(target: Target | None) -> Wants:
    """What is known of a target; nothing of None."""
    if target is None:
        return Wants()
    if target.flavour == "tensorrt_rtx":  # with the API of TensorRT 11
        return Wants(
            f"TensorRT for RTX {target.tensorrt}".rstrip(),
            11,
            versions.OPSETS[-1][1],
            target.compute_capability,
            rtx=True,
        )
    version = tuple(int(part) for part in re.findall(r"\d+", target.tensorrt)[:2])
    if not version:
        return Wants(capability=target.compute_capability)
    opset = max((opset for first, opset in versions.OPSETS if (*version, 0)[:2] >= first), default=OLDER)
    return Wants(f"TensorRT {target.tensorrt}", version[0], opset, target.compute_capability)
