"""What an .onnx file that is the source itself can be written as: as it is, in float16, or in int8 Q/DQ form.

The file keeps its names, layout, batch and operator set; a request for others is refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolkit.core import Model, QuantSpec, TensorSpec
from toolkit.errors import UnsupportedError
from toolkit.exporters import onnx_file, onnx_scan

if TYPE_CHECKING:
    from toolkit.exporters.onnx import ONNX

PER_CHANNEL = 13  # first operator set whose Q/DQ operators have an axis


def inputs(model: Model, asked: ONNX) -> tuple[TensorSpec, ...]:
    """The file's inputs for one image; raises UnsupportedError for a request that would change them."""
    where = "onnx"
    for spec in model.signature.inputs:
        if "layout" in asked.model_fields_set and spec.layout not in (asked.layout, "none"):
            problem = f"input {spec.name!r} of the source file is {spec.layout}, {asked.layout} was asked for"
            raise UnsupportedError(f"{where}.layout", problem, f'leave layout out, or set it to "{spec.layout}"')
        if asked.dynamic_batch and spec.shape[0] is not None:
            problem = f"input {spec.name!r} of the source file has a fixed batch of {spec.shape[0]}"
            raise UnsupportedError(f"{where}.dynamic_batch", problem, "export the source with an open batch")
        size = asked.input_shape
        if size and len(spec.shape) == 4 and tuple(size) not in (spec.shape[1:3], spec.shape[2:]):
            raise UnsupportedError(f"{where}.input_shape", f"input {spec.name!r} is {list(spec.shape)}", "leave it out")
    return tuple(replace(spec, shape=(spec.shape[0] or 1, *spec.shape[1:])) for spec in model.signature.inputs)


def convert(model: Model, asked: ONNX) -> Any:
    """The source's ModelProto, made ready for a change of types: functions unrolled, every node named."""
    import onnx

    proto = onnx_file.read(model.graph).proto
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    version = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if "opset" in asked.model_fields_set and asked.opset != version:
        problem = f"the source file is in operator set {version}, {asked.opset} was asked for"
        raise UnsupportedError("onnx.opset", problem, "leave opset out, or export the source anew")
    if model.quant.scheme in ("int8", "weight_int8") and version < PER_CHANNEL:
        problem = f"the source file is in operator set {version}, Q/DQ with scales per channel needs {PER_CHANNEL}"
        raise UnsupportedError("onnx", problem, "export the source in a later operator set")
    _fix_sizes(proto, model)
    taken = {node.name for node in proto.graph.node}
    for number, node in enumerate(proto.graph.node):
        if not node.name:
            name = f"{node.op_type}_{number}"
            node.name = name if name not in taken else f"{name}_unnamed"
    return proto


def is_as_asked(model: Model) -> bool:
    """Whether the source file is already what the model asks for, so that it goes out as it came."""
    file = onnx_file.read(model.graph)
    open_sizes = any(
        known is not None and found is None
        for spec, own in zip(model.signature.inputs, file.inputs, strict=False)
        for known, found in zip(spec.shape[1:], own.shape[1:], strict=False)
    )
    return onnx_scan.scheme_of(file) == model.quant.scheme and not open_sizes


def to_check(model: Model) -> QuantSpec:
    """What a written file is held to: nothing but its operators, where it is a source as it came."""
    return QuantSpec() if model.kind == "onnx" and is_as_asked(model) else model.quant


def _fix_sizes(proto: Any, model: Model) -> None:
    """Give the inputs the heights and widths that the recipe said for open ones."""
    known = {spec.name: spec.shape for spec in model.signature.inputs}
    for value in proto.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, known.get(value.name, ()), strict=False):
            if size is not None and not dim.dim_value:
                dim.dim_value = size
