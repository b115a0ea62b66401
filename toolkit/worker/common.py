"""What both runners do alike: versions, quantizing and dequantizing, memory."""

from __future__ import annotations

import platform
import resource
import sys
import time
from typing import Any, Dict, Iterable, List

import numpy

EVERY_S = 0.25  # at most so often is told how far it is
BLOCK_BYTES = 256 * 1024  # of rows transposed and quantized together: few calls, and still inside the cache

JobError: Any = sys.modules["__main__"].__dict__.get("JobError", ValueError)


def versions(runtime: str, version: str) -> Dict[str, str]:
    """Versions of Python, numpy and the runtime."""
    return {"python": platform.python_version(), "numpy": numpy.__version__, runtime: version}


def peak_rss_kib() -> int:
    """Largest resident memory of this program so far, in KiB.

    Linux says it of the program; getrusage's also counts what stood in its place before exec: who started it.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1])
    except OSError:
        pass  # no /proc: macOS, which counts bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if platform.system() == "Darwin" else peak


def quantize(array: Any, dtype: Any, scale: float, zero: int) -> Any:
    """float32 to the integers of a file's input: round(x / scale) + zero point, clipped (LiteRT quantization spec)."""
    limits = numpy.iinfo(dtype)
    steps = array / numpy.float32(scale)
    numpy.rint(steps, out=steps)
    steps += numpy.float32(zero)
    numpy.clip(steps, limits.min, limits.max, out=steps)
    return steps.astype(dtype)


def noise(rng: Any, shape: Iterable[int], dtype: Any) -> Any:
    """An input to time a file on: every uint8 alike, or float32 in 0..1 for any other type."""
    size = tuple(int(length) for length in shape)
    if numpy.dtype(dtype) == numpy.uint8:
        return rng.integers(0, 256, size, dtype=numpy.uint8)
    return rng.random(size, dtype=numpy.float32)


def batch(job: Dict[str, Any]) -> int:
    """Images in one inference, as the job asks."""
    return int(job.get("batch", 1))


def check_batch(job: Dict[str, Any], name: str, size: Any) -> None:
    """JobError where an input's batch, as it is now, is not the job's: the file has it fixed."""
    if size != batch(job) and "batch" in job:
        raise JobError("input %r has a fixed batch of %s, %d was asked for" % (name, size, batch(job)))


class Told:
    """Rows that leave word in a file of how many of them were read: whoever waits for the process looks into it.

    An array for `run_all`, which reads it block by block.
    """

    def __init__(self, array: Any, path: str) -> None:
        self._array, self._path, self._next = array, path, 0.0

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, rows: Any) -> Any:
        now = time.monotonic()
        if isinstance(rows, slice) and rows.start and now >= self._next:
            self._next = now + EVERY_S
            try:
                with open(self._path, "w") as file:
                    file.write("%.4f" % (rows.start / len(self._array)))
            except OSError:
                pass  # a full disk: nobody is told
        return self._array[rows]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._array, name)


def block_rows(arrays: Dict[str, Any]) -> int:
    """How many rows of these arrays make a block."""
    row = sum(int(array[:1].nbytes) for array in arrays.values())
    return max(1, BLOCK_BYTES // max(1, row))


def fit(name: str, array: Any, shape: Iterable[Any], dtype: Any, layout: Any, *, size: int = 1) -> Any:
    """Rows of data as a file with a batch of `size` takes them. shape: the file's, free sizes no int > 0."""
    if layout == "NCHW":
        array = array.transpose(0, 3, 1, 2)
    own = list(shape)
    fixed = [length if isinstance(length, int) and length > 0 else got for length, got in zip(own, array.shape)]
    batch = isinstance(own[0], int) and own[0] > 0 and own[0] != size
    if len(own) != array.ndim or list(array.shape[1:]) != fixed[1:] or batch:
        raise JobError("input %r takes %s, the data is %s" % (name, own, array.shape))
    if numpy.dtype(dtype) == numpy.uint8 and array.dtype != dtype:
        raise JobError("input %r takes uint8 pixels, the data is %s" % (name, array.dtype))
    return numpy.ascontiguousarray(array, dtype=dtype)


def dequantize(array: Any, scale: float, zero: int) -> Any:
    """Integers of a file's output to float32: (q - zero point) * scale."""
    return (array.astype(numpy.float32) - zero) * numpy.float32(scale)


def match(wanted: Iterable[str], known: List[str], what: str) -> Dict[str, str]:
    """Name of the job -> key of the file: the same name, or the only one there is."""
    wanted, found = list(wanted), {}
    for name in wanted:
        if name in known:
            found[name] = name
        elif len(wanted) == len(known) == 1:
            found[name] = known[0]
        else:
            raise JobError("the file has no %s %r, it has %s" % (what, name, ", ".join(sorted(known))))
    return found
