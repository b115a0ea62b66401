"""Times by operator from LiteRT's own profiler, behind the C functions of the library in its wheel.

The Python module has none of it, and nothing documents it: a LiteRT without these functions is no error, it only has
no shares. Page: litert/c/litert_profiler.h and litert_compiled_model.h in google-ai-edge/LiteRT (2.x).
"""

from __future__ import annotations

import ctypes
import os
import re
from typing import Any, Callable, List, Tuple

import shares

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


def summary(folder: str, model: str, runs: int) -> str:
    """The profiler's table for a file on the CPU, one thread; folder: of the module. Nothing is freed."""
    lib = Library(folder)
    environment, loaded, options, compiled, profiler = Handle(), Handle(), Handle(), Handle(), Handle()
    lib.LiteRtCreateEnvironment(0, None, ctypes.byref(environment))
    lib.LiteRtCreateModelFromFile(environment, os.fsencode(model), ctypes.byref(loaded))
    lib.LiteRtCreateOptions(ctypes.byref(options))
    lib.LiteRtSetOptionsHardwareAccelerators(options, CPU)
    lib.LiteRtAddOpaqueOptions(options, _profiling(lib))
    lib.LiteRtCreateCompiledModel(environment, loaded, options, ctypes.byref(compiled))
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


def rows(text: str) -> List[Tuple[str, str, float]]:
    """(name, kind, percent) of each operator in the table in the order they ran, a delegate's own among them.

    A delegate's operators have no names there: they are numbered in that order.
    """
    found: List[Tuple[str, str, float]] = []
    table = text.split("Run Order", 1)[-1].split("Top by Computation Time", 1)[0]
    for line in table.splitlines():
        parts = [part.strip() for part in re.split(r"\t|  +", line) if part.strip()]
        if len(parts) >= 9 and re.match(r"^[\d.]+%$", parts[4]):
            kind = parts[0].replace("Delegate/", "")
            found.append(("%02d %s" % (len(found), kind), kind, float(parts[4][:-1])))
    return found


def layers(folder: str, model: str) -> Any:
    """Shares of the operators, or why there are none."""
    try:
        text = summary(folder, model, shares.RUNS)
    except ProfileError as error:
        return {"layers": [], "why": "LiteRT gave no profile: %s" % error}
    found = shares.Shares("LiteRT's profiler, one thread")
    for name, kind, percent in rows(text):
        found.add(name, kind, percent)
    return found.result()
