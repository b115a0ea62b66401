"""NVIDIA's real parser and builder on the CPU (tensorrt_rtx), for tests: what they refuse, and what an engine holds.

tensorrt_rtx's own parser and code generator: a form that builds is legal, typed and placed as Q/DQ must be; nothing is
said of other TensorRT versions, of speed or of a device. Page: docs.nvidia.com, TensorRT for RTX, "CPU-only AOT".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120")
CONVOLUTIONS = ("correlation", "convolution", "deconvolution")  # layer types in the log of tensorrt_rtx 1.7
FIRST_INPUT = re.compile(r"LayerType: (\w+), Inputs: \[ \{[^}]*Datatype: (\w+)")


@dataclass(frozen=True)
class Built:
    """An engine's size, the layers the build log lists as (type, type of the first input), what was wrong."""

    size: int = 0
    layers: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def int8_convolutions(self) -> int:
        """Convolutions that read int8."""
        return sum(kind in CONVOLUTIONS and dtype == "Int8" for kind, dtype in self.layers)


def build(content: bytes, capability: str = "SM86", batch: int = 1) -> Built:
    """Parse and build an .onnx file for GPUs of one compute capability; errors are returned, not raised."""
    import tensorrt_rtx as trt

    log = _log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(content):
        return Built(problems=tuple(str(parser.get_error(i)) for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    _free_batch(builder, network, config, batch)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return Built(problems=tuple(log.errors))
    listed = "".join(text for text in log.texts if text.startswith("Layers:"))
    return Built(plan.nbytes, tuple(FIRST_INPUT.findall(listed)))


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.texts: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            self.texts.append(text)
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(text)

    return Log()


def _free_batch(builder: Any, network: Any, config: Any, batch: int) -> None:
    profile = builder.create_optimization_profile()
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    for each in (each for each in inputs if -1 in tuple(each.shape)):
        shape = [batch if size == -1 else size for size in each.shape]
        profile.set_shape(each.name, [1, *shape[1:]], shape, shape)
    if any(-1 in tuple(each.shape) for each in inputs):
        config.add_optimization_profile(profile)
