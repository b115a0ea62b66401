"""Zeros in the weights of a delivered file, and whether the runtime that runs it makes use of them: by rules.

Each rule is a fact of a runtime's source or documentation and names it; what no rule decides is said to be open, and
benchmarks/sparsity.py measures the same file with and without zeros.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from toolkit.checks.weights import constant
from toolkit.core import Artifact, Measurement
from toolkit.devices import DeviceProfile
from toolkit.exporters import onnx_file, onnx_scan, tflite_file, tflite_scan

WORTH = 0.25  # of the weights: rounding to 8 bits alone makes fewer
ENOUGH = 2 / 3  # of the weights of 1x1 convolutions (XNNPACK, src/subgraph.c: num_zeroes * 3 > num_params * 2)
X86 = ("x86_64", "AMD64", "i686")
XNNPACK_FLOATS = "XNNPACK, src/subgraph.c: sparse inference is of float32 and float16"
XNNPACK_HINT = "LiteRT, xnnpack_delegate.cc: the hint for sparse inference comes with DENSIFY alone"
XNNPACK_X86 = "XNNPACK, src/xnnpack/hardware-config.h: xnn_is_chw_compatible_config"
XNNPACK_SHARE = "XNNPACK, src/subgraph.c: num_zeroes * 3 > num_params * 2"
XNNPACK_SAME = "XNNPACK, src/subgraph.c: depthwise convolutions of one padding on all sides"
XNNPACK_START = (
    "XNNPACK, src/subgraph.c: a cluster begins with a 3x3 convolution of 3 channels, stride 2, explicit padding"
)
BUILT_IN = "LiteRT, kernels/densify.cc"
ORT = "onnxruntime.ai, its CPU kernels take dense weights"
OPENVINO = "docs.openvino.ai, sparse weights decompression: off unless a rate is set, and of int8 dense layers on AMX"
TENSORRT = "docs.nvidia.com, TensorRT, Structured Sparsity"
TFLM = "tflite-micro, its kernels take dense weights"
VELA = "developer.arm.com, Benefit of pruning and clustering a neural network ... on Arm Ethos-U NPU"


@dataclass(frozen=True)
class Zeros:
    """What a file's weights hold. packed: weights stored without their zeros. two_of_four: layers with 2 of every 4
    input channels zero, of so many `layers`. pointwise: share of zeros in 1x1 convolutions, None where it has none.
    starts: it has the convolution that XNNPACK's sparse inference begins with; same: depthwise ones of stride 2 with
    padding SAME, which end it."""

    share: float
    weights: int
    layers: int
    two_of_four: int
    packed: int = 0
    pointwise: float | None = None
    starts: bool = False
    same: int = 0


@dataclass(frozen=True)
class Use:
    """Whether zeros are made use of ("open": no rule rules it out), why, and where that is known from."""

    used: Literal["no", "open"]
    why: str
    source: str


def measure_zeros(artifact: Artifact, found: Zeros, device: DeviceProfile, runtime: str, delegate: str) -> Measurement:
    """`zeros`, the share of weights that are zero, with what this device's runtime makes of them."""
    use = use_of(artifact, found, device, runtime, delegate)
    how = {"used": use.used, "why": use.why, "rule": use.source, "2:4": f"{found.two_of_four} of {found.layers} layers"}
    how["packed"] = f"{found.packed} of {found.layers} weights"
    return Measurement(artifact.name, "zeros", found.share, "", "computed", device=device.name, how=how)


def is_sparse(found: Zeros) -> bool:
    """Whether there is something to say; a fixed 1x1 shortcut has zeros of its own."""
    return found.share >= WORTH or 2 * found.two_of_four >= max(1, found.layers)


def zeros_of(path: Path) -> Zeros:
    """Read a .tflite or .onnx file."""
    return _of_tflite(path) if path.suffix == ".tflite" else _of_onnx(path)


def reads_compressed(artifact: Artifact, device: DeviceProfile) -> bool:
    """Whether an Ethos-U computes this file there, for which its weights are compressed."""
    return artifact.scheme in ("int8", "int16x8") and any(processor.vela for processor in device.processors)


def use_of(artifact: Artifact, found: Zeros, device: DeviceProfile, runtime: str, delegate: str) -> Use:
    """What a runtime on a device makes of a file's zeros."""
    if runtime in ("litert", "tflite-runtime"):
        return _xnnpack(artifact, found, device, delegate)
    if runtime == "tensorrt":
        return _tensorrt(found, device)
    if reads_compressed(artifact, device):
        words = "an Ethos-U reads weights compressed by Vela, and zeros may save it time: see `edgekit device estimate`"
        return Use("open", words, VELA)
    fixed = {
        "onnxruntime": Use("no", "ONNX Runtime computes with all weights", ORT),
        "openvino": Use("no", "OpenVINO computes with all weights unless told otherwise", OPENVINO),
        "tflite-micro": Use("no", "tflite-micro computes with all weights", TFLM),
    }
    return fixed.get(runtime, Use("open", "nothing is known of this runtime and zeros", "unverified"))


def _xnnpack(artifact: Artifact, found: Zeros, device: DeviceProfile, delegate: str) -> Use:
    """The conditions of XNNPACK's sparse inference, in order."""
    if delegate == "none":
        return Use("no", "LiteRT's own kernels compute with all weights, packed ones unpacked", BUILT_IN)
    if delegate != "xnnpack":
        return Use("open", f"nothing is known of the delegate {delegate} and zeros", "unverified")
    if artifact.scheme not in ("float32", "float16"):
        return Use("no", f"XNNPACK skips zeros in float alone, this file is {artifact.scheme}", XNNPACK_FLOATS)
    if not found.packed:
        return Use("no", "XNNPACK looks for zeros in packed files alone (pack_sparse)", XNNPACK_HINT)
    if (platform.machine() if device.transport == "local" else device.arch) in X86:
        return Use("no", "XNNPACK's sparse kernels are off on x86 with AVX", XNNPACK_X86)
    if not found.starts:
        words = "no 3x3 convolution of 3 channels with stride 2 and explicit padding, which it must begin with"
        return Use("no", words, XNNPACK_START)
    if found.same:
        words = f"{found.same} depthwise convolutions of stride 2 have padding SAME, which is not the same on each side"
        return Use("no", words, XNNPACK_SAME)
    if found.pointwise is None or found.pointwise <= ENOUGH:
        words = "no 1x1 convolutions" if found.pointwise is None else f"{found.pointwise:.0%} of their weights are zero"
        return Use("no", f"more than two thirds must be zero in 1x1 convolutions: {words}", XNNPACK_SHARE)
    words = "as far as the graph has only layers that its sparse form has: compare with the same file, dense"
    return Use("open", words, XNNPACK_START)


def _tensorrt(found: Zeros, device: DeviceProfile) -> Use:
    capability = tuple(int(part) for part in device.compute_capability.split(".") if part)
    if capability and capability < (8, 0):
        return Use("no", f"compute capability {device.compute_capability} has no sparse tensor cores", TENSORRT)
    if not found.two_of_four:
        return Use("no", "no layer has two zeros in every four input channels", TENSORRT)
    words = "engines of a run are built without sparse kernels; `edgekit engine --sparse` allows them in"
    return Use("no", f"{words} {found.two_of_four} of {found.layers} layers, and says which it chose", TENSORRT)


# ---------------------------------------------------------------- files


def _of_tflite(path: Path) -> Zeros:
    file = tflite_file.read(path)
    arrays, packed, point, starts, same = [], 0, [], False, 0
    for operator, tensor, _ in tflite_scan.weights(file):
        if tensor.data is None:
            continue
        arrays.append((tensor.data, tensor.data.ndim - 1, operator.kind == "DEPTHWISE_CONV_2D"))
        packed += tensor.sparse
        if operator.kind == "CONV_2D" and tensor.shape[1:3] == (1, 1):
            point.append(tensor.data)
        options = dict(operator.options)
        strided = options.get("strideH") == options.get("strideW") == "2" and options.get("padding") == "1"  # VALID
        starts |= operator.kind == "CONV_2D" and tensor.shape[1:] == (3, 3, 3) and strided
        same += operator.kind == "DEPTHWISE_CONV_2D" and options.get("padding") == "0" and options["strideH"] != "1"
    return replace(_counted(arrays, point), packed=packed, starts=starts, same=same)


def _of_onnx(path: Path) -> Zeros:
    file = onnx_file.read(path)
    made = {name: node for node in file.nodes for name in node.output}
    arrays = []
    for node in file.nodes:
        if node.op_type in onnx_scan.WEIGHTED and (array := constant(file, made, node.input[1])) is not None:
            attributes = {each.name: each.i for each in node.attribute}
            axis = 1 if node.op_type == "Conv" or attributes.get("transB") else 0
            depthwise = attributes.get("group", 1) > 1 or node.op_type == "ConvTranspose"
            arrays.append((array, axis if array.ndim > 2 or axis else array.ndim - 2, depthwise))
    return _counted(arrays)


def _counted(arrays: list[tuple[Any, int, bool]], point: Any = ()) -> Zeros:
    """arrays: (weight, axis of its input channels, whether these are not multiplied together)."""
    import numpy as np

    size = sum(array.size for array, _, _ in arrays)
    zeros = sum(int(np.sum(array == 0)) for array, _, _ in arrays)
    share = zeros / size if size else 0.0
    halved = sum(not apart and _two_of_four(array, axis) for array, axis, apart in arrays)
    pointwise = sum(int(np.sum(array == 0)) for array in point) / sum(array.size for array in point) if point else None
    return Zeros(share, size, len(arrays), halved, pointwise=pointwise)


def _two_of_four(array: Any, axis: int) -> bool:
    """Whether of every four input channels two are zero, at each output and place."""
    import numpy as np

    rows = np.moveaxis(array, axis, -1)
    if rows.shape[-1] % 4:
        return False
    groups = rows.reshape(-1, 4)
    return bool((np.count_nonzero(groups, axis=1) <= 2).all())
