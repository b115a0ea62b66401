"""Drives ai-edge-quantizer: a float .tflite file becomes what a request says, operator by operator, on our encodings.

Its own calibration is a moving average over single images, which depends on their order and cuts what it has forgotten:
it is never used. Page: github.com/google-ai-edge/ai-edge-quantizer.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Collection, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.core import ACTIVATION_BITS, STATIC, Scheme
from toolkit.errors import UnsupportedError
from toolkit.exporters.quiet import quiet
from toolkit.exporters.tflite_encodings import Encodings
from toolkit.exporters.tflite_file import File, Operator
from toolkit.exporters.tflite_operators import AEQ_NAMES, WEIGHT_ONLY, WEIGHTED

if TYPE_CHECKING:
    from toolkit.core import Array

PACKAGE = "ai-edge-quantizer"
POLICY: dict[Scheme, str] = {"int8": "static_wi8_ai8", "int16x8": "static_wi8_ai16"}


@dataclass(frozen=True)
class Request:
    """What a float file is to become. schemes: of its operators, in order. ends: types of its inputs and outputs."""

    schemes: tuple[Scheme, ...]
    granularity: str = "per_channel"
    ends: tuple[str, str] = ("float32", "float32")


def unsupported(file: File, schemes: tuple[Scheme, ...]) -> list[int]:
    """Indexes of the operators that ai-edge-quantizer has no form of in the scheme asked of them."""
    from ai_edge_quantizer import default_policy

    known = json.loads(default_policy.DEFAULT_JSON_POLICY)["ops_per_config"]
    return [
        index
        for index, (operator, scheme) in enumerate(zip(file.operators, schemes, strict=True))
        if not _has_form(operator, scheme, known.get(POLICY.get(scheme, ""), ()))
    ]


def _has_form(operator: Operator, scheme: Scheme, known: Collection[str]) -> bool:
    if scheme in STATIC:
        kind = AEQ_NAMES.get(operator.kind, operator.kind)
        return not _in_float(operator) or (kind in known and _constant(operator))
    return operator.kind not in WEIGHTED or operator.kind in WEIGHT_ONLY.get(scheme, WEIGHTED)


def quantize(content: bytes, file: File, request: Request, encodings: Encodings | None) -> bytes:
    """The file's bytes, quantized; raises UnsupportedError where ai-edge-quantizer refuses."""
    try:
        with quiet(), redirect_stderr(io.StringIO()):  # one of its progress bars cannot be switched off
            return _quantized(content, file, request, encodings)
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        problem = f"ai-edge-quantizer cannot quantize the file: {text[0][:200]}"
        raise UnsupportedError("tflite", problem, "use another scheme, or backend tensorflow") from error


def _quantized(content: bytes, file: File, request: Request, encodings: Encodings | None) -> bytes:
    from ai_edge_quantizer import quantizer

    work = quantizer.Quantizer(content)
    _write_recipe(work, file, request)
    found = _statistics(file, encodings) if encodings else None
    return bytes(work.quantize(found, enable_progress_bar=False, enable_progress_report=False).quantized_model)


def _write_recipe(work: Any, file: File, request: Request) -> None:
    """One rule for the scheme that most operators have, one for each of the others, then the ends."""
    usual = max(sorted(set(request.schemes)), key=request.schemes.count)
    _add(work, ".*", usual, request.granularity)
    for operator, scheme in zip(file.operators, request.schemes, strict=True):
        if scheme != usual and _in_float(operator):
            names = "".join(f"{tensor.name};" for tensor in operator.outputs)
            _add(work, f"^{re.escape(names)}$", scheme, request.granularity)
    if usual in STATIC or any(scheme in STATIC for scheme in request.schemes):
        _set_ends(work, request.ends)


def _add(work: Any, regex: str, scheme: Scheme, granularity: str) -> None:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import QuantGranularity, TFLOperationName

    whole, dense = QuantGranularity.TENSORWISE, TFLOperationName.FULLY_CONNECTED
    scales = whole if granularity == "per_tensor" else QuantGranularity.CHANNELWISE
    everything = TFLOperationName.ALL_SUPPORTED
    if scheme in STATIC:
        work.add_static_config(regex, everything, ACTIVATION_BITS[scheme], 8, scales)
        if granularity == "dense_per_tensor":
            work.add_static_config(regex, dense, ACTIVATION_BITS[scheme], 8, whole)
        return
    work.update_quantization_recipe(regex, everything, algorithm_key=AlgorithmName.NO_QUANTIZE)
    for kind in sorted(WEIGHT_ONLY.get(scheme, ())):
        operator = TFLOperationName(AEQ_NAMES.get(kind, kind))
        own = whole if granularity == "dense_per_tensor" and operator == dense else scales
        if scheme == "dynamic":
            work.add_dynamic_config(regex, operator, 8, own)
        elif scheme == "float16":
            work.add_weight_only_config(regex, operator, 16, QuantGranularity.TENSORWISE, AlgorithmName.FLOAT_CASTING)
        else:
            work.add_weight_only_config(regex, operator, 4 if scheme == "weight_int4" else 8, own)


def _set_ends(work: Any, ends: tuple[str, str]) -> None:
    """Types of the file's inputs and outputs, over whatever rule the operators next to them have."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    names = qtyping.TFLOperationName
    last = "(?:.*)"  # matches everything, and is another rule than ".*": the latest one counts
    for end, dtype in zip((names.INPUT, names.OUTPUT), ends, strict=True):
        if dtype == "float32":
            work.update_quantization_recipe(last, end, algorithm_key=AlgorithmName.NO_QUANTIZE)
            continue
        kind = qtyping.TensorDataType.UINT if dtype == "uint8" else qtyping.TensorDataType.INT
        wide = dtype == "int16"
        config = qtyping.OpQuantizationConfig(
            activation_tensor_config=qtyping.TensorQuantizationConfig(16 if wide else 8, symmetric=wide, dtype=kind),
            weight_tensor_config=qtyping.TensorQuantizationConfig(8, symmetric=True),
            compute_precision=qtyping.ComputePrecision.INTEGER,
            explicit_dequantize=False,
        )
        work.update_quantization_recipe(last, end, config)


def _statistics(file: File, encodings: Encodings) -> dict[str, dict[str, Array]]:
    """Encodings as ai-edge-quantizer takes its calibration: least and greatest value of each tensor, by name."""
    import numpy as np

    found = {
        name: {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
        for name, (low, high) in encodings.bounds.items()
    }
    tensors = {tensor.name: (tensor, operator) for operator in file.operators for tensor in operator.inputs if tensor}
    for name, scales in encodings.weight_scales.items():
        tensor, operator = tensors[name]
        found[name] = _weight_ends(scales, len(tensor.shape), WEIGHTED[operator.kind].axis)
    return found


def _weight_ends(scales: Array, rank: int, axis: int) -> dict[str, Array]:
    import numpy as np

    shape = [1] * rank
    if scales.size > 1:
        shape[axis] = scales.size
    ends = (scales * 127).astype(np.float32).reshape(shape)
    return {"min": -ends, "max": ends}


def _constant(operator: Operator) -> bool:
    """Whether its weights, if it has any, are constants."""
    place = WEIGHTED.get(operator.kind)
    weights = operator.inputs[place.weights] if place else None
    return weights is None or weights.data is not None


def _in_float(operator: Operator) -> bool:
    """Whether it computes in float32 in the float file: shape arithmetic is in integers already."""
    return any(tensor.dtype == "float32" for tensor in operator.outputs)


def bounds_missing(file: File, bounds: Mapping[str, Any]) -> list[str]:
    """Computed float tensors that have no range."""
    named = [t.name for op in file.operators for t in op.outputs if t.dtype == "float32"]
    named += [tensor.name for _, tensor in file.inputs if tensor.dtype == "float32"]
    return [name for name in dict.fromkeys(named) if name not in bounds]
