"""What an engine is built from, where, and what is known of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# tensorrt: the library with a builder for all GPUs and Jetson. tensorrt_rtx: NVIDIA's edition for RTX GPUs, whose
# versions count from 1 and whose API is that of TensorRT 11.
Flavour = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True)
class ShapeRange:
    """Least, usual and greatest shape of one input with free dimensions: an optimization profile."""

    least: tuple[int, ...]
    usual: tuple[int, ...]
    greatest: tuple[int, ...]


@dataclass(frozen=True)
class BuildSpec:
    """What is asked of a builder, the Python one or trtexec. Precision is the ONNX graph's own.

    shapes: of inputs with free dimensions, by name; none for static files. strongly_typed: types are the graph's, as
    TensorRT 10 does when asked and 11 always. fp16, int8: what a weakly typed builder (8.5 to 10) may use besides
    float32; int8 for graphs with Q/DQ. dla_core: the accelerator to use, with what it cannot take on the GPU.
    sparse: 2:4 sparse weights may use sparse kernels. timing_cache: file on the device, "" for none.
    """

    workspace_mib: int
    shapes: Mapping[str, ShapeRange] = field(default_factory=dict)
    strongly_typed: bool = True
    fp16: bool = False
    int8: bool = False
    dla_core: int | None = None
    sparse: bool = False
    optimization_level: int | None = None
    timing_cache: str = ""


@dataclass(frozen=True)
class Target:
    """The system an engine is for, as far as it can be told; "" and None for what cannot.

    compute_capability: "8.7" for Orin. platform: "linux-aarch64". l4t: of Jetson, "36.4.3". power_mode: name of it.
    """

    tensorrt: str
    compute_capability: str
    device: str
    platform: str
    flavour: Flavour = "tensorrt"
    os: str = ""
    l4t: str = ""
    cuda: str = ""
    driver: str = ""
    power_mode: str = ""
    memory_mib: int | None = None


@dataclass(frozen=True)
class EngineRecord:
    """The JSON beside an engine: what it was built from, by what, for what. Engines are code that loads only there.

    builder: which of the two made it, with `flags` as it was called. precision: layers by data type, as the
    inspector names them, in how many layers; empty where it was not asked. on_gpu: layers a DLA left to the GPU.
    verified: whether it ran on the device it is for.
    """

    engine_sha256: str
    onnx_sha256: str
    target: Target
    spec: BuildSpec
    builder: Literal["trtexec", "python"]
    flags: tuple[str, ...] = ()
    precision: Mapping[str, int] = field(default_factory=dict)
    on_gpu: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    edgekit: str = ""
    schema: int = 1
