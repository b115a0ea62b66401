"""Which names TensorRT's Python module has in which version: the fake modules have these and no others.

Sources, by key:
  bindings  python/src of NVIDIA/TensorRT, branches release/8.5, 8.6, 10.x
  lean      enumerations and classes of the tensorrt_lean 11.4 wheel, imported
  strings   names in the shared library of the tensorrt_cu13_bindings 11.4 wheel
  rtx       dir() of tensorrt_rtx 1.7.1, whose API is that of 11
  notes     release notes and migration guide, "removed in"
No full TensorRT was at hand: the table is what those say, not what was tried.
"""

from __future__ import annotations

from typing import NamedTuple

ALL = (8, 5)


class Row(NamedTuple):
    """One name, the first version that has it and the first that has it no more; value: of an enumeration's member."""

    name: str
    first: tuple[int, ...]
    gone: tuple[int, ...] | None
    source: str
    value: int | None = None


TABLE = (
    # network creation
    Row("NetworkDefinitionCreationFlag.EXPLICIT_BATCH", ALL, (11,), "bindings, lean", 0),
    Row("NetworkDefinitionCreationFlag.EXPLICIT_PRECISION", ALL, (9,), "bindings", 1),
    Row("NetworkDefinitionCreationFlag.STRONGLY_TYPED", (9,), (11,), "bindings", 1),
    Row("NetworkDefinitionCreationFlag.STRONGLY_TYPED", (11,), None, "lean, rtx", 0),
    # builder flags: values of 8.5 to 10 from the bindings, where a number plays no part here
    Row("BuilderFlag.FP16", ALL, (11,), "bindings, notes", 0),
    Row("BuilderFlag.INT8", ALL, (11,), "bindings, notes", 1),
    Row("BuilderFlag.GPU_FALLBACK", ALL, None, "bindings, rtx", 3),
    Row("BuilderFlag.TF32", ALL, None, "bindings, rtx", 6),
    Row("BuilderFlag.SPARSE_WEIGHTS", ALL, None, "bindings, rtx", 7),
    Row("BuilderFlag.OBEY_PRECISION_CONSTRAINTS", ALL, (11,), "bindings, notes", 10),
    # the builder
    Row("Builder.create_network", ALL, None, "bindings, rtx"),
    Row("Builder.create_builder_config", ALL, None, "bindings, rtx"),
    Row("Builder.create_optimization_profile", ALL, None, "bindings, rtx"),
    Row("Builder.build_serialized_network", ALL, None, "bindings, rtx"),
    Row("Builder.num_DLA_cores", ALL, None, "bindings, rtx"),
    Row("Builder.platform_has_fast_fp16", ALL, (11,), "bindings, notes"),
    Row("Builder.platform_has_fast_int8", ALL, (11,), "bindings, notes"),
    Row("Builder.build_engine", ALL, (10,), "bindings, notes"),
    Row("Builder.max_batch_size", ALL, (10,), "bindings, notes"),
    # its configuration
    Row("IBuilderConfig.set_flag", ALL, None, "bindings, rtx"),
    Row("IBuilderConfig.set_memory_pool_limit", ALL, None, "bindings, rtx"),
    Row("IBuilderConfig.profiling_verbosity", ALL, None, "bindings, rtx"),
    Row("IBuilderConfig.add_optimization_profile", ALL, None, "bindings, rtx"),
    Row("IBuilderConfig.default_device_type", ALL, None, "bindings, rtx"),
    Row("IBuilderConfig.DLA_core", ALL, None, "bindings, rtx"),
    Row("IBuilderConfig.can_run_on_DLA", ALL, None, "bindings, rtx"),
    Row("IBuilderConfig.create_timing_cache", ALL, None, "bindings, rtx"),
    Row("IBuilderConfig.set_timing_cache", ALL, None, "bindings, rtx"),
    Row("IBuilderConfig.get_timing_cache", ALL, None, "bindings, rtx"),
    Row("IBuilderConfig.builder_optimization_level", (8, 6), None, "bindings, rtx"),
    Row("IBuilderConfig.max_workspace_size", ALL, (10,), "bindings, notes"),
    Row("IBuilderConfig.int8_calibrator", ALL, (11,), "bindings, notes"),
    Row("IOptimizationProfile.set_shape", ALL, None, "bindings, rtx"),
    Row("ITimingCache.serialize", ALL, None, "bindings, lean"),
    Row("MemoryPoolType.WORKSPACE", ALL, None, "bindings, rtx", 0),
    Row("ProfilingVerbosity.DETAILED", ALL, None, "bindings, rtx", 2),
    Row("DeviceType.GPU", ALL, None, "bindings, lean", 0),
    Row("DeviceType.DLA", ALL, None, "bindings, lean", 1),
    # network and parser
    Row("INetworkDefinition.num_inputs", ALL, None, "bindings, rtx"),
    Row("INetworkDefinition.get_input", ALL, None, "bindings, rtx"),
    Row("INetworkDefinition.num_layers", ALL, None, "bindings, rtx"),
    Row("INetworkDefinition.get_layer", ALL, None, "bindings, rtx"),
    Row("INetworkDefinition.has_implicit_batch_dimension", ALL, (11,), "bindings, notes"),
    Row("ILayer.name", ALL, None, "bindings, rtx"),
    Row("ILayer.type", ALL, None, "bindings, rtx"),
    Row("ILayer.num_outputs", ALL, None, "bindings, rtx"),
    Row("ILayer.get_output", ALL, None, "bindings, rtx"),
    Row("ILayer.precision", ALL, (11,), "bindings, notes"),
    Row("ITensor.name", ALL, None, "bindings, rtx"),
    Row("ITensor.dtype", ALL, None, "bindings, rtx"),
    Row("ITensor.shape", ALL, None, "bindings, rtx"),
    Row("ITensor.is_shape_tensor", ALL, None, "bindings, rtx"),
    Row("ITensor.dynamic_range", ALL, (11,), "bindings, notes"),
    Row("LayerType.QUANTIZE", ALL, None, "bindings, rtx", 32),
    Row("LayerType.DEQUANTIZE", ALL, None, "bindings, rtx", 33),
    Row("LayerType.CONVOLUTION", ALL, None, "bindings, rtx", 0),
    Row("OnnxParser.parse_from_file", ALL, None, "bindings, rtx"),
    Row("OnnxParser.num_errors", ALL, None, "bindings, rtx"),
    Row("OnnxParser.get_error", ALL, None, "bindings, rtx"),
    Row("DataType.FLOAT", ALL, None, "bindings, rtx", 0),
    Row("DataType.HALF", ALL, None, "bindings, rtx", 1),
    Row("DataType.INT8", ALL, None, "bindings, rtx", 2),
    Row("DataType.INT32", ALL, None, "bindings, rtx", 3),
    Row("DataType.BOOL", ALL, None, "bindings, rtx", 4),
    Row("DataType.UINT8", ALL, None, "bindings, rtx", 5),
    Row("DataType.INT64", (10,), None, "bindings, rtx", 8),
    # loading and running
    Row("Runtime.deserialize_cuda_engine", ALL, None, "bindings, rtx"),
    Row("Runtime.DLA_core", ALL, None, "bindings, rtx"),
    Row("ICudaEngine.create_execution_context", ALL, None, "bindings, rtx"),
    Row("ICudaEngine.create_engine_inspector", ALL, None, "bindings, rtx"),
    Row("ICudaEngine.num_io_tensors", ALL, None, "bindings, rtx"),
    Row("ICudaEngine.get_tensor_name", ALL, None, "bindings, rtx"),
    Row("ICudaEngine.get_tensor_mode", ALL, None, "bindings, rtx"),
    Row("ICudaEngine.get_tensor_shape", ALL, None, "bindings, rtx"),
    Row("ICudaEngine.get_tensor_dtype", ALL, None, "bindings, rtx"),
    Row("ICudaEngine.num_bindings", ALL, (10,), "bindings, notes"),
    Row("ICudaEngine.device_memory_size", ALL, (11,), "bindings, notes"),
    Row("ICudaEngine.device_memory_size_v2", (10,), None, "bindings, rtx"),
    Row("ICudaEngine.has_implicit_batch_dimension", ALL, (10,), "bindings, notes"),
    Row("IExecutionContext.set_input_shape", ALL, None, "bindings, rtx"),
    Row("IExecutionContext.get_tensor_shape", ALL, None, "bindings, rtx"),
    Row("IExecutionContext.set_tensor_address", ALL, None, "bindings, rtx"),
    Row("IExecutionContext.execute_async_v3", ALL, None, "bindings, rtx"),
    Row("IExecutionContext.execute_async_v2", ALL, (10,), "bindings, notes"),
    Row("EngineInspector.get_engine_information", ALL, None, "bindings, rtx"),
    Row("LayerInformationFormat.JSON", ALL, None, "bindings, rtx", 1),
    Row("TensorIOMode.INPUT", ALL, None, "bindings, rtx", 1),
    Row("TensorIOMode.OUTPUT", ALL, None, "bindings, rtx", 2),
)


def names(version: tuple[int, ...]) -> dict[str, dict[str, int | None]]:
    """Class -> its names in that version (-> the value of an enumeration's member)."""
    found: dict[str, dict[str, int | None]] = {}
    for row in TABLE:
        if row.first <= version and (row.gone is None or version < row.gone):
            owner, _, name = row.name.partition(".")
            found.setdefault(owner, {})[name] = row.value
    return found
