"""Runs .onnx files with TensorRT: builds an engine in the job's own work folder, and runs it by tensor names.

One stream, page-locked host memory. An inference is timed with its transfers; the GPU's own time is taken apart, by
events around the engine, in runs of its own. Engines are code: besides those built here, only one whose sha256 the job
names is loaded. What ran where this was written is a stand-in for TensorRT and for the CUDA runtime, no GPU.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import time
from typing import Any, Dict, List, Optional, Tuple

import common
import cudart
import numpy
import tensorrt
import trt_build
import trt_layers

# numpy types by TensorRT's names: its own nptype() asks numpy for names that numpy 1.24 dropped
DTYPES = {
    "FLOAT": numpy.float32,
    "HALF": numpy.float16,
    "UINT8": numpy.uint8,
    "INT32": numpy.int32,
    "INT64": numpy.int64,
    "BOOL": numpy.bool_,
}
GPU_RUNS = 50  # inferences for the GPU's own time, after those that are timed whole


def versions(runtime: str) -> Dict[str, str]:
    """Versions of Python, numpy and TensorRT."""
    return dict(common.versions(runtime, tensorrt.__version__))


def describe() -> Dict[str, Any]:
    """The GPU, or why there is none."""
    try:
        return {"gpu": cudart.Cuda().describe()}
    except cudart.CudaError as error:
        return {"gpu": None, "problem": str(error)}


def build(job: Dict[str, Any]) -> Dict[str, Any]:
    """Build the engine of job["model"] into job["engine"], as job["build"] says; the facts, layers and both hashes."""
    cuda, spec = _gpu(), job["build"]
    plan, facts = _built(job["model"], spec)
    _write(job["engine"], plan)
    inspected = _inspected(_opened(plan, spec.get("dla_core")))
    return {
        **facts,
        "versions": versions(job["runtime"]),
        "inspector": inspected,
        "precision": trt_layers.counted(trt_layers.of_json(inspected)),
        "engine_sha256": hashlib.sha256(plan).hexdigest(),
        "onnx_sha256": _sha256(job["model"]),
        "size_bytes": len(plan),
        "gpu": cuda.describe(),
    }


class Tensor:
    """One input or output: its memory on both sides. array: the host's, as numpy sees it."""

    def __init__(self, cuda: Any, name: str, shape: Tuple[int, ...], dtype: Any) -> None:
        self.cuda, self.name, self.shape, self.dtype = cuda, name, shape, numpy.dtype(dtype)
        self.size = int(numpy.prod(shape, dtype=numpy.int64)) * self.dtype.itemsize
        self.device, self.host = cuda.device_memory(self.size), cuda.host_memory(self.size)
        block = (ctypes.c_char * self.size).from_address(self.host)
        self.array = numpy.frombuffer(block, self.dtype).reshape(shape)

    def free(self) -> None:
        """Give the memory back; `array` must not be touched afterwards."""
        self.cuda.free(self.device, self.host)


class Runner:
    """One engine with an execution context. Inputs and outputs are bound by name."""

    def __init__(self, job: Dict[str, Any]) -> None:
        self.job = job
        self.delegate = job.get("delegate", "gpu")
        if self.delegate not in ("gpu", "dla"):
            raise common.JobError("tensorrt has no delegate %r" % self.delegate)
        self.cuda = _gpu()
        self.build_seconds, self.built = 0.0, {}  # type: Tuple[float, Dict[str, Any]]
        self.spec = self._spec()
        self.engine = _opened(self._plan(), self.spec.get("dla_core"))
        self.context = self.engine.create_execution_context()
        if self.context is None:
            raise common.JobError("TensorRT has no memory to run the engine", "unavailable")
        self.layers = trt_layers.of_json(_inspected(self.engine) or '{"Layers": []}')
        mode = tensorrt.TensorIOMode.INPUT
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        self.inputs = [name for name in names if self.engine.get_tensor_mode(name) == mode]
        self.outputs = [name for name in names if name not in self.inputs]
        self.tensors: Dict[str, Tensor] = {}

    # ---------------------------------------------------------------- the engine

    def _spec(self) -> Dict[str, Any]:
        """What the job asks for; where it says nothing, the graph's own precision, typed as this version can."""
        spec = self.job.get("build")
        if spec is None:
            strong = trt_build.can_be_strong(tensorrt)
            held = set() if strong else _held(self.job["model"])
            spec = {"strongly_typed": strong, "int8": "int8" in held, "fp16": "float16" in held}
        spec = dict(spec)
        if self.delegate == "dla" and spec.get("dla_core") is None:
            spec["dla_core"] = 0
        if self.delegate == "gpu" and spec.get("dla_core") is not None:
            raise common.JobError("the build is for a DLA and the delegate is gpu: use delegate dla")
        return spec

    def _plan(self) -> bytes:
        """An engine whose hash the job names; else the one built here before from the same file; else a new one."""
        path, trusted = self.job["model"], self.job.get("engine_sha256")
        if trusted or not path.endswith(".onnx"):
            with open(path, "rb") as file:
                plan = file.read()
            if hashlib.sha256(plan).hexdigest() != trusted:
                raise common.JobError("is not the engine the job names by its sha256, and engines are code")
            return plan
        cached = self._cache_path()
        if os.path.exists(cached):
            with open(cached + ".json") as text:
                self.built = json.load(text)
            with open(cached, "rb") as file:
                return file.read()
        started = time.perf_counter()
        plan, self.built = _built(path, self.spec)
        with open(cached + ".json", "w") as text:
            json.dump(self.built, text)
        _write(cached, plan)
        self.build_seconds = time.perf_counter() - started
        return plan

    def _cache_path(self) -> str:
        """In the job's work folder, which nobody else writes; named by all that the engine depends on."""
        parts = [_sha256(self.job["model"]), json.dumps(self.spec, sort_keys=True), tensorrt.__version__]
        name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
        return os.path.join(os.path.dirname(os.path.abspath(self.job["result"])), "trt-%s.engine" % name)

    # ---------------------------------------------------------------- memory

    def _bind(self, shapes: Dict[str, Tuple[int, ...]]) -> None:
        """Memory for inputs of these shapes and the outputs that follow from them, known to the engine by name."""
        if self.tensors and all(self.tensors[name].shape == shape for name, shape in shapes.items()):
            return
        for tensor in self.tensors.values():
            tensor.free()
        self.tensors = {}
        for name, shape in shapes.items():
            if not self.context.set_input_shape(name, shape):
                words = "input %r takes %s, not %s"
                own = list(self.engine.get_tensor_shape(name))
                raise common.JobError(words % (name, own, list(shape)))
        for name in self.inputs + self.outputs:
            found = shapes.get(name) or tuple(int(size) for size in self.context.get_tensor_shape(name))
            if any(size < 0 for size in found):
                raise common.JobError("output %r has no size before it is computed, which is not supported" % name)
            self.tensors[name] = Tensor(self.cuda, name, found, self._dtype(name))
            self.context.set_tensor_address(name, self.tensors[name].device)

    def _dtype(self, name: str) -> Any:
        kind = self.engine.get_tensor_dtype(name).name
        if kind not in DTYPES:
            raise common.JobError("tensor %r is of type %s, which is not supported" % (name, kind))
        return DTYPES[kind]

    # ---------------------------------------------------------------- running

    def set_inputs(self, given: Dict[str, Any]) -> None:
        """Fill the inputs: from `given` (name -> array with a batch of 1), else seeded noise, 0..1 or uint8."""
        names = common.match(given, self.inputs, "input") if given else {}
        arrays = {inner: self._fit(outer, numpy.asarray(given[outer]), inner) for outer, inner in names.items()}
        rng = numpy.random.default_rng(self.job.get("seed", 0))
        for name in self.inputs:
            if name not in arrays:
                arrays[name] = common.noise(rng, self._usual(name), self._dtype(name)).astype(self._dtype(name))
        self._bind({name: array.shape for name, array in arrays.items()})
        for name, array in arrays.items():
            self.tensors[name].array[...] = array

    def _usual(self, name: str) -> List[int]:
        """A shape to time: a batch of 1; other free dimensions as the build's usual shape has them."""
        own = [int(size) for size in self.engine.get_tensor_shape(name)]
        asked = (self.spec.get("shapes") or {}).get(name)
        usual = (asked["usual"] if isinstance(asked, dict) else asked[1]) if asked else [1] * len(own)
        return [size if size > 0 else (1 if axis == 0 else usual[axis]) for axis, size in enumerate(own)]

    def invoke(self) -> None:
        """One inference with its transfers; back when the outputs are there."""
        for name in self.inputs:
            tensor = self.tensors[name]
            self.cuda.upload(tensor.device, tensor.host, tensor.size)
        self._execute()
        for name in self.outputs:
            tensor = self.tensors[name]
            self.cuda.download(tensor.host, tensor.device, tensor.size)
        self.cuda.wait()

    def _execute(self) -> None:
        if not self.context.execute_async_v3(self.cuda.stream):
            raise common.JobError("TensorRT could not run the engine: %s" % " | ".join(_said()))

    def run_all(self, arrays: Dict[str, Any], count: int) -> Tuple[Dict[str, Any], float]:
        """Outputs by name, float32, one row at a time; and the seconds spent in `invoke`."""
        names = common.match(arrays, self.inputs, "input")
        missing = sorted(set(self.inputs) - set(names.values()))
        if missing:
            raise common.JobError("inputs without data: %s" % ", ".join(missing))
        wanted = common.match(self.job["outputs"], self.outputs, "output")
        stores: Dict[str, Any] = {}
        clock, spent = time.perf_counter, 0.0
        block_rows = common.block_rows(arrays)
        for start in range(0, count, block_rows):
            rows = slice(start, start + block_rows)
            blocks = {inner: self._fit(name, arrays[name][rows], inner) for name, inner in names.items()}
            for row in range(min(block_rows, count - start)):
                self._bind({name: block[row : row + 1].shape for name, block in blocks.items()})
                for name, block in blocks.items():
                    self.tensors[name].array[...] = block[row : row + 1]
                before = clock()
                self.invoke()
                spent += clock() - before
                for outer, inner in wanted.items():
                    out = self.tensors[inner].array
                    if outer not in stores:
                        stores[outer] = numpy.empty((count,) + out.shape[1:], dtype=numpy.float32)
                    stores[outer][start + row] = out[0]
        return stores, spent

    def _fit(self, name: str, array: Any, inner: str) -> Any:
        layout = self.job.get("layouts", {}).get(name)
        return common.fit(name, array, self.engine.get_tensor_shape(inner), self._dtype(inner), layout)

    # ---------------------------------------------------------------- what is known

    def arena_bytes(self) -> None:
        """TensorRT has no arena of the kind that small devices need."""

    def facts(self) -> Dict[str, Any]:
        """What ran, on what, and the GPU's own time where the job is a timing."""
        strong = "strongly typed" if self.built.get("strongly_typed") else "weakly typed"
        typed = [strong] if self.built else []
        left = self.built.get("on_gpu") or []
        words = ["TensorRT %s" % tensorrt.__version__, trt_layers.words(self.layers)] + typed
        if left:
            words.append("left to the GPU by the DLA: %s" % ", ".join(left))
        found = {
            "versions": dict(versions("tensorrt"), cuda=self.cuda.version()),
            "threads": self.job.get("threads", 1),
            "delegate": self.delegate,
            "kernel_path": ", ".join(words),
            "peak_rss_kib": common.peak_rss_kib(),
            "build_seconds": self.build_seconds,
            "build": self.built,
            "precision": trt_layers.counted(self.layers),
            "device_memory_bytes": self._device_memory(),
            "timed": "an inference with its transfers, page-locked host memory",
        }
        if self.job.get("kind") == "bench" and self.tensors:
            found["gpu_ms"] = self._gpu_times()
        return found

    def _device_memory(self) -> Optional[int]:
        size = getattr(self.engine, "device_memory_size_v2", None)
        return int(self.engine.device_memory_size if size is None else size)

    def _gpu_times(self) -> Dict[str, Any]:
        """Milliseconds of the GPU alone, by events around the engine, inputs in place."""
        start, end, samples = self.cuda.event(), self.cuda.event(), []
        for _ in range(GPU_RUNS):
            self.cuda.record(start)
            self._execute()
            self.cuda.record(end)
            samples.append(self.cuda.milliseconds(start, end))
        median, p99 = (float(numpy.percentile(samples, q)) for q in (50, 99))
        return {"median": median, "p99": p99, "runs": GPU_RUNS, "how": "CUDA events around execute_async_v3"}


# ---------------------------------------------------------------- TensorRT itself

_RUNTIMES: List[Any] = []  # engines need theirs as long as they live


def _said() -> List[str]:
    return [" ".join(line.split()) for line in trt_build.logger(tensorrt).errors[-3:]] or ["it does not say why"]


def _gpu() -> Any:
    """CUDA with a GPU, asked before TensorRT is: its runtime crashes without one."""
    try:
        return cudart.Cuda()
    except cudart.CudaError as error:
        raise common.JobError("there is no GPU to use: %s" % error, "unavailable")


def _built(path: str, spec: Dict[str, Any]) -> Tuple[bytes, Dict[str, Any]]:
    try:
        plan, facts = trt_build.build(path, spec, tensorrt)
        return plan, facts
    except trt_build.BuildError as error:
        raise common.JobError(str(error), error.kind)


def _opened(plan: bytes, dla_core: Optional[int]) -> Any:
    runtime = tensorrt.Runtime(trt_build.logger(tensorrt))
    _RUNTIMES.append(runtime)
    if dla_core is not None:
        runtime.DLA_core = dla_core
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise common.JobError("TensorRT %s cannot load the engine: %s" % (tensorrt.__version__, " | ".join(_said())))
    return engine


def _inspected(engine: Any) -> str:
    return str(engine.create_engine_inspector().get_engine_information(tensorrt.LayerInformationFormat.JSON))


def _held(path: str) -> Any:
    import onnx_types

    return onnx_types.held(path)


def _sha256(path: str) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()


def _write(path: str, plan: bytes) -> None:
    """For this user alone, whole or not at all."""
    handle = os.open(path + ".part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(plan)
    os.replace(path + ".part", path)
