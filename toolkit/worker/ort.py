"""Runs .onnx files with ONNX Runtime."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Optional, Tuple

import common
import numpy
import onnxruntime
import ort_gpu
import shares

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "none": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
DTYPES = {
    "tensor(float)": numpy.float32,
    "tensor(float16)": numpy.float16,
    "tensor(double)": numpy.float64,
    "tensor(uint8)": numpy.uint8,
}


def versions(runtime: str) -> Dict[str, str]:
    """Versions of Python, numpy and ONNX Runtime."""
    return dict(common.versions(runtime, onnxruntime.__version__))


class Runner:
    """One file in a session of the provider that was asked for. Inputs and outputs are bound by name."""

    def __init__(self, job: Dict[str, Any]) -> None:
        self.job = job
        self.delegate = job.get("delegate", "cpu")
        provider = PROVIDERS.get(self.delegate)
        if provider is None:
            raise common.JobError("onnxruntime has no provider %r in this worker" % self.delegate)
        self.provider: str = provider
        self.gpu = self.delegate in ("cuda", "tensorrt")
        if self.gpu:
            self._need_gpu()
        self.session = self._session()
        self.inputs = {item.name: item for item in self.session.get_inputs()}
        self.feed: Dict[str, Any] = {}

    def _need_gpu(self) -> None:
        """The provider is part of this ONNX Runtime; libraries it needs are loaded from wheels, where there are any."""
        able = onnxruntime.get_available_providers()
        if self.provider not in able:
            words = "this onnxruntime has no %s, it has %s: install %s"
            raise common.JobError(words % (self.provider, ", ".join(able), ort_gpu.PACKAGE), "unavailable")
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()

    def _session(self, profile: str = "") -> Any:
        """A session of the provider that was asked for, and of no other in its place."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.job.get("threads", 1)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, profile
        providers: Any = ort_gpu.providers(self.delegate, self.job) if self.gpu else [self.provider]
        try:
            session = onnxruntime.InferenceSession(self.job["model"], options, providers=providers, enable_fallback=0)
        except Exception as error:  # onnxruntime's own exceptions share no base but this
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise common.JobError("onnxruntime cannot load the file: %s" % lines[0])
        ran = session.get_providers()[0]
        if ran != self.provider:
            words = "%s was asked for and %s ran: a library it needs may be missing, or there is no GPU"
            raise common.JobError(words % (self.provider, ran), "unavailable")
        return session

    def _kernel_path(self) -> str:
        """What computes: on a GPU, nodes by provider in one profiled run, and an error where the provider took none."""
        if not self.gpu:
            return self.provider
        if not self.feed:
            self.set_inputs({})
        session = self._session(os.path.join(os.path.dirname(os.path.abspath(self.job["result"])), "ort-profile"))
        session.run(None, self.feed)
        path: str = session.end_profiling()
        found = ort_gpu.read(path)
        os.remove(path)
        words: str = ort_gpu.words(self.provider, found)
        if self.provider not in [node.provider for node in found]:
            raise common.JobError("%s took no node of the file: %s" % (self.provider, words))
        return words

    def layers(self) -> Dict[str, Any]:
        """Each node's share of a profiled session's kernel times."""
        session = self._session(os.path.join(os.path.dirname(os.path.abspath(self.job["result"])), "ort-layers"))
        for _ in range(1 + shares.RUNS):
            session.run(None, self.feed)
        path: str = session.end_profiling()
        found: Dict[str, Any] = shares.of_onnxruntime(path)
        os.remove(path)
        return found

    def set_inputs(self, given: Dict[str, Any]) -> None:
        """Fill the inputs: from `given` (name -> array with a batch of 1), else seeded noise, 0..1 or uint8."""
        names = common.match(given, list(self.inputs), "input") if given else {}
        rng = numpy.random.default_rng(self.job.get("seed", 0))
        for name, item in self.inputs.items():
            source = next((outer for outer, inner in names.items() if inner == name), None)
            shape = [size if isinstance(size, int) else 1 for size in item.shape]
            if shape and not isinstance(item.shape[0], int):
                shape[0] = common.batch(self.job)
            elif shape:
                common.check_batch(self.job, name, shape[0])
            dtype = DTYPES.get(item.type, numpy.float32)
            array = common.noise(rng, shape, dtype) if source is None else numpy.asarray(given[source])
            self.feed[name] = self._fit(source or name, array, item)

    def invoke(self) -> None:
        """One inference on the inputs that were set."""
        self.session.run(None, self.feed)

    def run_all(self, arrays: Dict[str, Any], count: int) -> Tuple[Dict[str, Any], float]:
        """Outputs by name, float32, one row at a time; and the seconds spent in the session."""
        names = common.match(arrays, list(self.inputs), "input")
        if len(names) < len(self.inputs):
            missing = sorted(set(self.inputs) - set(names.values()))
            raise common.JobError("inputs without data: %s" % ", ".join(missing))
        known = [item.name for item in self.session.get_outputs()]
        wanted = common.match(self.job["outputs"], known, "output")
        ask = list(wanted.values())
        collected: Optional[List[Any]] = None
        run, clock, spent = self.session.run, time.perf_counter, 0.0
        block_rows = common.block_rows(arrays)
        for start in range(0, count, block_rows):
            rows = slice(start, start + block_rows)
            blocks = [(inner, self._fit(name, arrays[name][rows], self.inputs[inner])) for name, inner in names.items()]
            for row in range(min(block_rows, count - start)):
                feed = {inner: block[row : row + 1] for inner, block in blocks}
                before = clock()
                outputs = run(ask, feed)
                spent += clock() - before
                if collected is None:
                    collected = [numpy.empty((count,) + out.shape[1:], dtype=numpy.float32) for out in outputs]
                for store, out in zip(collected, outputs):
                    store[start + row] = out[0]
        return dict(zip(wanted, collected or [])), spent

    def _fit(self, name: str, array: Any, item: Any) -> Any:
        """Rows of data as the file takes them, one at a time."""
        layout = self.job.get("layouts", {}).get(name)
        return common.fit(
            name, array, item.shape, DTYPES.get(item.type, numpy.float32), layout, size=common.batch(self.job)
        )

    def arena_bytes(self) -> None:
        """ONNX Runtime shows none."""

    def facts(self) -> Dict[str, Any]:
        """What ran."""
        return {
            "versions": versions("onnxruntime"),
            "threads": self.job.get("threads", 1),
            "delegate": self.delegate,
            "kernel_path": self._kernel_path(),
            "peak_rss_kib": common.peak_rss_kib(),
        }
