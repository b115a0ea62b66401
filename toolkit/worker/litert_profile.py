"""Times by operator from LiteRT's own profiler, behind the C functions of the library in its wheel.

The Python module has none of it, and nothing documents it: a LiteRT without these functions is no error, it only has
no shares. Page: litert/c/litert_profiler.h and litert_compiled_model.h in google-ai-edge/LiteRT (2.x).
"""

from __future__ import annotations

import ctypes
import os
import re
from typing import Any, Callable, Iterator, List, NamedTuple, Optional

import shares

REPEATS = 5  # times it starts anew: its table has means alone, and one interrupted inference spoils a mean
LIBRARY = "libLiteRt.so"
CPU = 1  # kLiteRtHwAcceleratorCpu
WRITE = 1  # kLiteRtTensorBufferLockModeWrite
IDENTIFIER = b"runtime_options_string"
PAYLOAD = b"enable_profiling = true\n"
TYPE_BYTES = 1024  # room for LiteRtRankedTensorType, which is not looked into
Handle = ctypes.c_void_p
Status = ctypes.c_int


class ProfileError(Exception):
    """This LiteRT gives no profile."""


class Library:
    """The functions, each of which raises ProfileError where it is absent or fails."""

    def __init__(self, folder: str) -> None:
        try:
            self._library = ctypes.CDLL(os.path.join(folder, LIBRARY))
        except OSError as error:
            raise ProfileError(str(error)) from error

    def __getattr__(self, name: str) -> Callable[..., None]:
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise ProfileError("%s has no %s" % (LIBRARY, name)) from error
        function.restype = Status

        def call(*arguments: Any) -> None:
            status = function(*arguments)
            if status != 0:
                raise ProfileError("%s failed with status %d" % (name, status))

        return call

    def destroy(self, what: str, handle: Any) -> None:
        """Free something; these functions give nothing back, and a library without one keeps it."""
        function = getattr(self._library, "LiteRtDestroy%s" % what, None)
        if function is not None:
            function.restype = None
            function(handle)


class Row(NamedTuple):
    """One operator of the profiler's table. spent: share in the table's own time, in its unit.

    operator: its place in the file, None for one of a delegate's, which have no names and are numbered in their order.
    """

    name: str
    kind: str
    spent: float
    delegated: bool
    operator: Optional[int]


def summaries(folder: str, model: str, runs: int, repeats: int) -> Iterator[str]:
    """The profiler's tables for a file on the CPU, one thread; folder: of the module.

    The profiler adds up what it sees for as long as it lives, so that each table is of a model compiled anew.
    """
    lib = Library(folder)
    environment, loaded = Handle(), Handle()
    lib.LiteRtCreateEnvironment(0, None, ctypes.byref(environment))
    lib.LiteRtCreateModelFromFile(environment, os.fsencode(model), ctypes.byref(loaded))
    for _ in range(repeats):
        options, compiled = Handle(), Handle()
        lib.LiteRtCreateOptions(ctypes.byref(options))
        lib.LiteRtSetOptionsHardwareAccelerators(options, CPU)
        lib.LiteRtAddOpaqueOptions(options, _profiling(lib))
        lib.LiteRtCreateCompiledModel(environment, loaded, options, ctypes.byref(compiled))
        yield _profiled(lib, environment, loaded, compiled, runs=runs)
        lib.destroy("CompiledModel", compiled)  # its weights are as many bytes again


def _profiled(lib: Library, environment: Handle, loaded: Handle, compiled: Handle, *, runs: int) -> str:
    profiler = Handle()
    lib.LiteRtCompiledModelGetProfiler(compiled, ctypes.byref(profiler))
    if not profiler:
        raise ProfileError("it made no profiler")
    ends = [_buffers(lib, environment, loaded, compiled, end) for end in ("Input", "Output")]
    run = [size for buffers in ends for size in (ctypes.c_size_t(len(buffers)), buffers)]
    lib.LiteRtRunCompiledModel(compiled, ctypes.c_size_t(0), *run)
    lib.LiteRtStartProfiler(profiler)
    for _ in range(runs):
        lib.LiteRtRunCompiledModel(compiled, ctypes.c_size_t(0), *run)
    lib.LiteRtStopProfiler(profiler)
    text = ctypes.c_char_p()
    lib.LiteRtGetProfileSummary(profiler, compiled, ctypes.byref(text))
    for buffers in ends:
        for buffer in buffers:
            lib.destroy("TensorBuffer", Handle(buffer))
    return (text.value or b"").decode(errors="replace")


def _profiling(lib: Library) -> Any:
    """Options that switch profiling on; the library frees the text itself, with the C library's free."""
    libc, opaque = ctypes.CDLL(None), Handle()
    libc.strdup.restype = Handle
    deleter = ctypes.cast(libc.free, Handle)
    lib.LiteRtCreateOpaqueOptions(IDENTIFIER, Handle(libc.strdup(PAYLOAD)), deleter, ctypes.byref(opaque))
    return opaque


def _buffers(lib: Library, environment: Any, model: Any, compiled: Any, end: str) -> Any:
    """A buffer for each input or output of the first signature, inputs filled with zeros."""
    signature, count = Handle(), ctypes.c_size_t()
    lib.LiteRtGetModelSignature(model, ctypes.c_size_t(0), ctypes.byref(signature))
    getattr(lib, "LiteRtGetNumSignature%ss" % end)(signature, ctypes.byref(count))
    buffers = (Handle * count.value)()
    for i in range(count.value):
        tensor, needs, buffer = Handle(), Handle(), Handle()
        kind = ctypes.create_string_buffer(TYPE_BYTES)
        index = ctypes.c_size_t(i)
        getattr(lib, "LiteRtGetSignature%sTensorByIndex" % end)(signature, index, ctypes.byref(tensor))
        lib.LiteRtGetRankedTensorType(tensor, kind)
        getattr(lib, "LiteRtGetCompiledModel%sBufferRequirements" % end)(
            compiled, ctypes.c_size_t(0), index, ctypes.byref(needs)
        )
        lib.LiteRtCreateManagedTensorBufferFromRequirements(environment, kind, needs, ctypes.byref(buffer))
        if end == "Input":
            _clear(lib, buffer)
        buffers[i] = buffer
    return buffers


def _clear(lib: Library, buffer: Any) -> None:
    size, address = ctypes.c_size_t(), Handle()
    lib.LiteRtGetTensorBufferPackedSize(buffer, ctypes.byref(size))
    lib.LiteRtLockTensorBuffer(buffer, ctypes.byref(address), WRITE)
    ctypes.memset(address, 0, size.value)
    lib.LiteRtUnlockTensorBuffer(buffer)


def rows(text: str) -> List[Row]:
    """The operators in the order they ran, a delegate's own among them."""
    found: List[Row] = []
    rest = text.partition("Run Order")[2]
    timing = re.search(r"Timings \(microseconds\): count=\d+ curr=(\d+)", text)
    total = float(timing.group(1)) if timing else 1.0
    for line in rest.split("Top by Computation Time", 1)[0].splitlines():
        parts = [part.strip() for part in re.split(r"\t|  +", line) if part.strip()]
        if len(parts) >= 9 and re.match(r"^[\d.]+%$", parts[4]):
            delegated, kind = parts[0].startswith("Delegate/"), parts[0].replace("Delegate/", "")
            place = re.search(r":(\d+)$", parts[-1])
            operator = int(place.group(1)) if place and not delegated else None
            spent = total * float(parts[4][:-1])
            found.append(Row("%02d %s" % (len(found), kind), kind, spent, delegated, operator))
    return found


def layers(folder: str, model: str) -> Any:
    """Shares of the operators, or why there are none."""
    runs = max(1, shares.RUNS // REPEATS)
    found = shares.Shares("LiteRT's profiler, one thread, the least of %d means of %d runs" % (REPEATS, runs), min)
    try:
        for text in summaries(folder, model, runs, REPEATS):
            for row in rows(text):
                facts = {"by": "delegate"} if row.delegated else {"by": "built-in", "operator": row.operator}
                found.add(row.name, row.kind, row.spent, **facts)
    except ProfileError as error:
        return {"layers": [], "why": "LiteRT gave no profile: %s" % error}
    return found.result()
