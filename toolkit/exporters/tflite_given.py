"""What a .tflite file that is the source itself can be written as: as it is, or quantized by ai-edge-quantizer.

Ranges are ours, found over the whole calibration split by the method that is asked for. The quantizer's own
calibration is a moving average over single images, which depends on their order and cuts what it has forgotten.
Page: github.com/google-ai-edge/ai-edge-quantizer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.core import ExportContext, Model, Progress, QuantSpec
from toolkit.errors import UnsupportedError
from toolkit.exporters import feeds, observed
from toolkit.exporters.quiet import quiet

if TYPE_CHECKING:
    from toolkit.core import Array

PACKAGE, EXTRA = "ai-edge-quantizer", "edgekit[tflite]"
# least width of a range: a tensor that is always 0 has none, and its scale would divide by it
LEAST_RANGE = 1e-6


def quantize(model: Model, context: ExportContext) -> bytes:
    """The source file in the scheme the model asks for; raises UnsupportedError where the quantizer cannot."""
    content = Path(model.graph).read_bytes()
    quant = model.quant
    ranges = _ranges(content, model, context) if quant.scheme == "int8" else None
    context.emit(Progress(f"quantizing to {quant.scheme}"))
    try:
        with quiet():
            return _quantized(content, quant, ranges)
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        fix = "use scheme dynamic or float16"
        raise UnsupportedError("tflite", f"ai-edge-quantizer cannot quantize the file: {text[0][:200]}", fix) from error


def _quantized(content: bytes, quant: QuantSpec, ranges: dict[str, dict[str, Array]] | None) -> bytes:
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.qtyping import QuantGranularity, TFLOperationName

    scales = QuantGranularity.CHANNELWISE if quant.granularity == "per_channel" else QuantGranularity.TENSORWISE
    work = quantizer.Quantizer(content)
    everything = TFLOperationName.ALL_SUPPORTED
    if quant.scheme == "int8":
        work.add_static_config(".*", everything, 8, 8, scales)
        _set_ends(work, quant.io)
    elif quant.scheme == "dynamic":
        work.add_dynamic_config(".*", everything, 8, scales)
    else:
        _set_float16(work)
    return bytes(work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model)


def _set_ends(work: Any, io: str) -> None:
    """Type of the file's inputs and outputs: int8 as the quantizer makes them, else float32 or uint8."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    names = qtyping.TFLOperationName
    for end in (names.INPUT, names.OUTPUT) if io != "int8" else ():
        if io == "float32":
            work.update_quantization_recipe(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
            continue
        unsigned = qtyping.TensorQuantizationConfig(8, symmetric=False, dtype=qtyping.TensorDataType.UINT)
        config = qtyping.OpQuantizationConfig(
            activation_tensor_config=unsigned,
            weight_tensor_config=qtyping.TensorQuantizationConfig(8, symmetric=True),
            compute_precision=qtyping.ComputePrecision.INTEGER,
            explicit_dequantize=False,
        )
        work.update_quantization_recipe(".*", end, config)


def _set_float16(work: Any) -> None:
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    names, scales = qtyping.TFLOperationName, qtyping.QuantGranularity.TENSORWISE
    for operator in (names.CONV_2D, names.DEPTHWISE_CONV_2D, names.FULLY_CONNECTED, names.CONV_2D_TRANSPOSE):
        work.add_weight_only_config(".*", operator, 16, scales, AlgorithmName.FLOAT_CASTING)


def _ranges(content: bytes, model: Model, context: ExportContext) -> dict[str, dict[str, Array]]:
    """Range of every computed float tensor over the calibration split, by tensor name, as the quantizer takes it."""
    examples = feeds.calibration(context, feeds.fixed_inputs(model, None, "tflite"))
    found = observed.observe_tflite(content, examples, model.quant.ranges, model.quant.percentile)
    return {name: _limits(low, high) for name, (low, high) in found.items()}


def _limits(low: float, high: float) -> dict[str, Array]:
    """A range that holds 0 (LiteRT 8-bit specification) and is wider than nothing."""
    import numpy as np

    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < LEAST_RANGE:
        high = low + LEAST_RANGE
    return {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
