"""A stand-in for TensorRT's Python module of one version: the names of `trt_table`, every use of them written down.

Its parser reads the real ONNX file, its "plan" is that file, and its engine computes with ONNX Runtime on the CPU, at
the addresses it is given: answers, shapes, types and the order of calls are real; speed and kernels are not.
Behaviour is chosen by what a test writes into `module.world`.
"""

from __future__ import annotations

import ctypes
import json
import types
from dataclasses import dataclass, field
from typing import Any

import trt_table

MAGIC = b"fake plan of "
ONNX_TYPES = {1: "FLOAT", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF"}
SIZES = {"FLOAT": 4, "UINT8": 1, "INT8": 1, "INT32": 4, "INT64": 8, "BOOL": 1, "HALF": 2}


@dataclass
class World:
    """What is true of the machine the fake stands on, and what was done to it."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    gpu: bool = True
    fast_fp16: bool = True
    fast_int8: bool = True
    dla_cores: int = 0
    on_dla: tuple[str, ...] = ()  # names of layers a DLA takes
    parse_errors: tuple[str, ...] = ()
    build_errors: list[str] = field(default_factory=list)  # each fails one build
    warnings: tuple[str, ...] = ()
    told: tuple[str, ...] = ()  # as information
    cache_fits: bool = True
    layers: list[Any] = field(default_factory=list)  # of the inspector


class Member:
    """A member of an enumeration: a number only when asked for one, as pybind11's are."""

    def __init__(self, name: str, value: int) -> None:
        self.name, self.value = name, value

    def __int__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return self.name


class Thing:
    """An object of TensorRT: names outside the table do not exist; settings and calls are written down."""

    def __init__(self, trt: Any, **state: Any) -> None:
        self.__dict__.update(_trt=trt, **{f"_{key}": value for key, value in state.items()})

    def __getattr__(self, name: str) -> Any:
        kind = type(self).__name__
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._trt._names.get(kind, {}):
            raise AttributeError(f"{self._trt.__name__} {self._trt.__version__} has no {kind}.{name}")
        return getattr(self, f"_{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            self.__dict__[name] = value
            return
        kind = type(self).__name__
        if name not in self._trt._names.get(kind, {}):
            raise AttributeError(f"{self._trt.__name__} {self._trt.__version__} has no {kind}.{name}")
        self._note("set", name, value)
        self.__dict__[f"_{name}"] = value

    def _note(self, *call: Any) -> None:
        self._trt.world.calls.append(call)


class ITensor(Thing):
    pass


class ILayer(Thing):
    def _get_output(self, index: int) -> Any:
        return self._outputs[index]

    @property
    def _num_outputs(self) -> int:
        return len(self._outputs)


class INetworkDefinition(Thing):
    _onnx = b""

    @property
    def _num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def _num_layers(self) -> int:
        return len(self._layers)

    def _get_input(self, index: int) -> Any:
        return self._inputs[index]

    def _get_layer(self, index: int) -> Any:
        return self._layers[index]


class OnnxParser(Thing):
    def __init__(self, trt: Any, network: Any, logger: Any) -> None:
        super().__init__(trt, network=network, errors=[], logger=logger)

    @property
    def _num_errors(self) -> int:
        return len(self._errors)

    def _get_error(self, index: int) -> str:
        return str(self._errors[index])

    def _parse_from_file(self, path: str) -> bool:
        import onnx

        self._errors = list(self._trt.world.parse_errors)
        if self._errors:
            return False
        model = onnx.shape_inference.infer_shapes(onnx.load(path))
        graph, network = model.graph, self._network
        constants = {item.name for item in graph.initializer}
        types_of = {item.name: item.type.tensor_type for item in (*graph.input, *graph.value_info, *graph.output)}
        network._onnx = model.SerializeToString()
        network._inputs = [self._tensor(item) for item in graph.input if item.name not in constants]
        network._layers = [self._layer(node, types_of) for node in graph.node]
        for text in self._trt.world.warnings:
            self._logger.log(2, text)
        for text in self._trt.world.told:
            self._logger.log(3, text)
        return True

    def _tensor(self, item: Any) -> ITensor:
        kind = item.type.tensor_type
        shape = tuple(dim.dim_value or -1 for dim in kind.shape.dim)
        return ITensor(self._trt, name=item.name, dtype=self._dtype(kind), shape=shape, is_shape_tensor=False)

    def _dtype(self, kind: Any) -> Any:
        return getattr(self._trt.DataType, ONNX_TYPES[kind.elem_type])

    def _layer(self, node: Any, types_of: dict[str, Any]) -> ILayer:
        kinds = {"QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE"}
        kind = getattr(self._trt.LayerType, kinds.get(node.op_type, "CONVOLUTION"))
        outputs = [ITensor(self._trt, dtype=self._dtype(types_of[name])) for name in node.output if name in types_of]
        return ILayer(self._trt, name=node.name or node.output[0], type=kind, outputs=outputs)


class IOptimizationProfile(Thing):
    def _set_shape(self, name: str, least: Any, usual: Any, greatest: Any) -> None:
        self._note("set_shape", name, tuple(least), tuple(usual), tuple(greatest))


class ITimingCache(Thing):
    def _serialize(self) -> bytes:
        return bytes(self._content) + b"+timings"


class IBuilderConfig(Thing):
    _cache = None

    def _set_flag(self, flag: Any) -> None:
        self._note("set_flag", flag.name)

    def _set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._note("set_memory_pool_limit", pool.name, size)

    def _add_optimization_profile(self, profile: Any) -> int:
        self._note("add_optimization_profile")
        return 0

    def _can_run_on_DLA(self, layer: Any) -> bool:
        return layer.name in self._trt.world.on_dla

    def _create_timing_cache(self, content: bytes) -> Any:
        return ITimingCache(self._trt, content=content)

    def _set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self._note("set_timing_cache", cache._content, ignore_mismatch)
        if cache._content and not self._trt.world.cache_fits:
            return False
        self._cache = cache
        return True

    def _get_timing_cache(self) -> Any:
        return self._cache


class Builder(Thing):
    def __init__(self, trt: Any, logger: Any) -> None:
        if not trt.world.gpu:
            logger.log(1, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        super().__init__(trt, logger=logger)

    _platform_has_fast_fp16 = property(lambda self: self._trt.world.fast_fp16)
    _platform_has_fast_int8 = property(lambda self: self._trt.world.fast_int8)
    _num_DLA_cores = property(lambda self: self._trt.world.dla_cores)  # noqa: N815  (TensorRT's name)

    def _create_network(self, flags: int) -> Any:
        self._note("create_network", flags)
        return INetworkDefinition(self._trt, inputs=[], layers=[])

    def _create_builder_config(self) -> Any:
        return IBuilderConfig(self._trt)

    def _create_optimization_profile(self) -> Any:
        return IOptimizationProfile(self._trt)

    def _build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        self._note("build_serialized_network")
        if self._trt.world.build_errors:
            self._logger.log(1, self._trt.world.build_errors.pop(0))
            return None
        return MAGIC + self._trt.__version__.encode() + b"\n" + network._onnx


class Runtime(Thing):
    def __init__(self, trt: Any, logger: Any) -> None:
        super().__init__(trt, logger=logger)

    def _deserialize_cuda_engine(self, plan: bytes) -> Any:
        head, _, onnx = bytes(plan).partition(b"\n")
        if head != MAGIC + self._trt.__version__.encode():
            self._logger.log(1, "The engine plan file is not compatible with this version of TensorRT")
            return None
        self._note("deserialize_cuda_engine")
        return ICudaEngine(self._trt, onnx=onnx)


class ICudaEngine(Thing):
    def __init__(self, trt: Any, onnx: bytes) -> None:
        import onnx as reader

        super().__init__(trt)
        graph = reader.load_from_string(onnx).graph
        constants = {item.name for item in graph.initializer}
        self._onnx = onnx
        self._ends = {item.name: item for item in (*graph.input, *graph.output) if item.name not in constants}
        self._given = {item.name for item in graph.input}

    _num_io_tensors = property(lambda self: len(self._ends))
    _device_memory_size = _device_memory_size_v2 = 4096

    def _get_tensor_name(self, index: int) -> str:
        return list(self._ends)[index]

    def _get_tensor_mode(self, name: str) -> Any:
        modes = self._trt.TensorIOMode
        return modes.INPUT if name in self._given else modes.OUTPUT

    def _get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(dim.dim_value or -1 for dim in self._ends[name].type.tensor_type.shape.dim)

    def _get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._trt.DataType, ONNX_TYPES[self._ends[name].type.tensor_type.elem_type])

    def _create_engine_inspector(self) -> Any:
        return EngineInspector(self._trt)

    def _create_execution_context(self) -> Any:
        return IExecutionContext(self._trt, engine=self)


class EngineInspector(Thing):
    def _get_engine_information(self, form: Any) -> str:
        return json.dumps({"Layers": self._trt.world.layers})


class IExecutionContext(Thing):
    """Computes at once, with ONNX Runtime, on what lies at the addresses."""

    def __init__(self, trt: Any, engine: Any) -> None:
        import onnxruntime

        super().__init__(trt, engine=engine, shapes={}, addresses={})
        self._session = onnxruntime.InferenceSession(engine._onnx, providers=["CPUExecutionProvider"])

    def _set_input_shape(self, name: str, shape: Any) -> bool:
        own = self._engine._get_tensor_shape(name)
        fits = len(own) == len(shape) and all(size in (-1, got) for size, got in zip(own, shape, strict=True))
        self._shapes[name] = tuple(shape)
        self._note("set_input_shape", name, tuple(shape))
        return fits

    def _get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return tuple(self._shapes[name])
        batch = next((shape[0] for shape in self._shapes.values() if shape), 1)
        return tuple(batch if size == -1 else size for size in self._engine._get_tensor_shape(name))

    def _set_tensor_address(self, name: str, address: int) -> bool:
        self._note("set_tensor_address", name)
        self._addresses[name] = int(address)
        return True

    def _execute_async_v3(self, stream: int) -> bool:
        import numpy as np

        self._note("execute_async_v3", stream)
        kinds = {"FLOAT": np.float32, "HALF": np.float16, "UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64}
        views = {}
        for name in self._engine._ends:
            kind, shape = self._engine._get_tensor_dtype(name).name, self._get_tensor_shape(name)
            count = int(np.prod(shape))
            block = (ctypes.c_char * (count * SIZES[kind])).from_address(self._addresses[name])
            views[name] = np.frombuffer(block, kinds[kind]).reshape(shape)
        outputs = [name for name in views if name not in self._engine._given]
        found = self._session.run(outputs, {name: views[name] for name in self._engine._given if name in views})
        for name, array in zip(outputs, found, strict=True):
            views[name][...] = array
        return True


class ILogger:
    """The base class a logger derives from."""

    def log(self, severity: Any, message: str) -> None:
        raise NotImplementedError


OBJECTS = (Builder, OnnxParser, Runtime)  # what a user makes; the rest comes from these


def module(text: str, name: str = "tensorrt") -> Any:
    """The module of a version: "8.5.2.2", "10.3.0", ..."""
    found: Any = types.ModuleType(name)
    found.__version__ = text
    found._names = trt_table.names(tuple(int(part) for part in text.split(".")[:3]))
    found.world = World()
    found.ILogger = ILogger
    for owner, entries in found._names.items():
        members = {key: Member(key, value) for key, value in entries.items() if value is not None}
        if members:
            setattr(found, owner, type(owner, (), {**members, "__members__": members}))
    for cls in OBJECTS:
        setattr(found, cls.__name__, _maker(found, cls))
    return found


def _maker(trt: Any, cls: Any) -> Any:
    return lambda *arguments: cls(trt, *arguments)
