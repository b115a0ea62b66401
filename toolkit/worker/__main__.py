"""Runs or times one model file on a device: `python WORKER job.json` writes the result to the path the job names.

Travels as a folder or a zip. Needs Python 3.8, numpy and one runtime, and imports nothing else. One job a process.
The runtime may print what it likes; only the result file counts. An error is {"error", "kind"} and exit code 1.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import Any, Dict, List, Tuple

import install

Job = Dict[str, Any]
RUNTIMES = {
    "litert": "litert",
    "tflite-runtime": "litert",
    "onnxruntime": "ort",
    "openvino": "ov",
    "tensorrt": "trt",
    "tflite-micro": "tflm",
}
# What the worker drives; older ones were tried and lack what it calls
LEAST = {"tflite-runtime": "2.8"}


class JobError(Exception):
    """What the job asks for cannot be done. kind: "input" or "unavailable". fix: what to do about it, in words."""

    def __init__(self, message: str, kind: str = "input", fix: str = "") -> None:
        super().__init__(message)
        self.kind, self.fix = kind, fix


def open_runner(job: Job) -> Any:
    """The runner of the job's runtime, the model loaded; its class is documented in its file."""
    module = runtime_module(job["runtime"])
    try:
        return module.Runner(job)
    except JobError as error:
        raise too_old(job["runtime"], module, str(error)) or error
    except (RuntimeError, ValueError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        old = too_old(job["runtime"], module, str(error))
        raise old or JobError("%s cannot load the file: %s" % (job["runtime"], lines[0])) from error


def runtime_module(runtime: str) -> Any:
    """The file of the worker that drives a runtime, the runtime imported, and new enough for it."""
    name = RUNTIMES.get(runtime)
    if name is None:
        raise JobError("no such runtime in the worker: %s" % runtime)
    try:
        import numpy

        module = __import__(name)
        version = module.versions(runtime)[runtime]
    except (ImportError, SystemError, AttributeError) as error:  # the last two: compiled for another numpy
        raise absent(runtime, error) from error
    least = LEAST.get(runtime)
    if least and release(version) < release(least):
        words = "%s %s is too old: the worker drives %s and later (numpy %s)"
        problem = words % (runtime, version, least, numpy.__version__)
        raise JobError(problem, "unavailable", install.newer(runtime))
    return module


def absent(runtime: str, error: BaseException) -> JobError:
    """A runtime that cannot be imported, or numpy, with the command that installs it here."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, ImportError) and error.name == "numpy":
        return JobError("numpy is missing: %s" % first, "unavailable", install.advice(runtime))
    numpy = sys.modules.get("numpy")
    version = str(getattr(numpy, "__version__", ""))
    if runtime == "tflite-runtime" and "tflite_runtime" in sys.modules and release(version) >= (2,):
        problem = "tflite-runtime cannot be imported beside numpy %s, it wants numpy 1" % version
        return JobError(problem, "unavailable", install.pip("'numpy<2'"))
    return JobError("%s cannot be imported: %s" % (runtime, first), "unavailable", install.advice(runtime))


def too_old(runtime: str, module: Any, text: str) -> Any:
    """The error to raise where a runtime refuses a file for being newer than it is; None for any other refusal."""
    why = install.too_new(text)
    if why is None:
        return None
    version = module.versions(runtime)[runtime]
    return JobError(
        "%s %s is too old for the file: %s" % (runtime, version, why), "unavailable", install.newer(runtime)
    )


def release(version: str) -> Tuple[int, ...]:
    """The numbers a version begins with, to be compared."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def bench(job: Job) -> Job:
    """Load, first inference, warm-up, then as many timed inferences as fit into the job's seconds (two at least)."""
    runtime_module(job["runtime"])  # importing it is no loading of the file
    import common

    before_kib = common.peak_rss_kib()
    started = time.perf_counter_ns()
    runner = open_runner(job)
    loaded = time.perf_counter_ns()
    import numpy

    runner.set_inputs({name: numpy.load(path, mmap_mode="r")[:1] for name, path in job.get("inputs", {}).items()})
    invoke = runner.invoke
    before = time.perf_counter_ns()
    invoke()
    first = time.perf_counter_ns() - before
    stop = time.perf_counter() + job["warmup_seconds"]
    while time.perf_counter() < stop:
        invoke()
    samples: List[int] = []
    clock = time.perf_counter_ns
    stop = clock() + int(job["seconds"] * 1e9)
    now = clock()
    while now < stop or len(samples) < 2:
        before = clock()
        invoke()
        now = clock()
        samples.append(now - before)
    result: Job = runner.facts()
    load_ms = (loaded - started) / 1e6 - 1e3 * getattr(runner, "build_seconds", 0.0)  # building an engine is no loading
    result.update(load_ms=load_ms, first_inference_ms=first / 1e6, samples_ns=samples, batch=int(job.get("batch", 1)))
    result["rss_before_kib"] = before_kib
    result["arena_bytes"] = runner.arena_bytes()
    return result


def evaluate(job: Job) -> Job:
    """Run every row of the inputs, one at a time, and write every output as float32."""
    started = time.perf_counter()
    runner = open_runner(job)
    import numpy

    arrays = {name: numpy.load(path, mmap_mode="r") for name, path in job["inputs"].items()}
    count = len(next(iter(arrays.values())))
    if "told" in job:
        import common

        arrays = {name: common.Told(array, job["told"]) for name, array in arrays.items()}
    found, seconds = runner.run_all(arrays, count)
    for name, path in job["outputs"].items():
        if name not in found:
            raise JobError("the file has no output %r, it has %s" % (name, ", ".join(sorted(found))))
        numpy.save(path, found[name])
    result: Job = runner.facts()
    result.update(n=count, seconds_invoke=seconds, seconds_total=time.perf_counter() - started)
    return result


def info(job: Job) -> Job:
    """The runtime's version, and the GPU where it needs one."""
    module = runtime_module(job["runtime"])
    more = module.describe() if hasattr(module, "describe") else {}
    return dict(more, versions=module.versions(job["runtime"]), newer=install.newer(job["runtime"]))


def build(job: Job) -> Job:
    """Build an engine of the job's model, where the runtime is one that builds."""
    name = RUNTIMES.get(job["runtime"])
    if name != "trt":
        raise JobError("%s builds no engines" % job["runtime"])
    return runtime_module(job["runtime"]).build(job)  # type: ignore[no-any-return]


def sustain(job: Job) -> Job:
    """Inferences for as long as the job says, with clocks, temperatures and power beside them."""
    runtime_module(job["runtime"])
    started = time.perf_counter_ns()
    runner = open_runner(job)
    loaded = time.perf_counter_ns()
    import sustained

    result: Job = sustained.with_facts(runner, job)
    result["load_ms"] = (loaded - started) / 1e6
    return result


def layers(job: Job) -> Job:
    """Each layer's share of the time, where the runtime tells; {"layers": [], "why": ...} where it does not."""
    runtime_module(job["runtime"])
    runner = open_runner(job)
    if not hasattr(runner, "layers"):
        return {"layers": [], "why": "%s has no profile by layer" % job["runtime"]}
    runner.set_inputs({})
    result: Job = runner.layers()
    return result


def bind(job: Job) -> List[int]:
    """Keep this process, and all it starts, on the job's cores; the cores it may run on then."""
    if not hasattr(os, "sched_setaffinity"):
        if job.get("cores"):
            raise JobError("this system binds no process to cores", "unavailable")
        return []
    if job.get("cores"):
        try:
            os.sched_setaffinity(0, job["cores"])
        except OSError as error:
            words = "cannot run on cores %s: %s; it has %s"
            able = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
            raise JobError(words % (", ".join(map(str, job["cores"])), error.strerror, able))
        bound = sorted(os.sched_getaffinity(0))
        if bound != sorted(set(job["cores"])):  # Linux leaves out in silence what it has not
            raise JobError("has no core %s" % ", ".join(map(str, sorted(set(job["cores"]) - set(bound)))))
    return sorted(os.sched_getaffinity(0))


def taken(job: Job) -> Job:
    """What of the file a delegate took, without running it; {} where the runtime does not tell."""
    runtime_module(job["runtime"])
    runner = open_runner(job)
    result: Job = runner.taken() if hasattr(runner, "taken") else {}
    return dict(result, versions=runner.facts()["versions"])


KINDS = {"bench": bench, "eval": evaluate, "info": info, "build": build, "sustain": sustain}
KINDS.update(layers=layers, taken=taken)


def main(path: str) -> int:
    """Do the job in the file `path`; 0 or 1."""
    with open(path) as file:
        job = json.load(file)
    code = 0
    try:
        cores = bind(job)
        result = dict(KINDS[job["kind"]](job), cores=cores)
    except JobError as error:
        result, code = {"error": str(error), "kind": error.kind, "fix": error.fix}, 1
    except (RuntimeError, ValueError) as error:  # what the runtimes raise when an inference fails
        lines = str(error).strip().splitlines() or [type(error).__name__]
        result, code = {"error": "%s failed: %s" % (job["runtime"], lines[0]), "kind": "input"}, 1
    partial = job["result"] + ".part"
    with open(partial, "w") as file:
        json.dump(result, file)
    os.replace(partial, job["result"])
    return code


if __name__ == "__main__":
    # runners raise the JobError of this module, which they know as `__main__`
    sys.exit(main(sys.argv[1]))
