"""The few calls of the CUDA runtime that an engine needs, through ctypes: nothing to compile, nothing to install.

libcudart comes with CUDA (JetPack has it), or with the wheels that TensorRT's own wheel asks for.
Signatures: NVIDIA, CUDA Runtime API.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import glob
import os
import sys
from typing import Any, Dict, Iterator, List

TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
CAPABILITY = (75, 76)  # cudaDevAttrComputeCapabilityMajor and Minor
INTEGRATED = 18  # cudaDevAttrIntegrated: its memory is the CPU's
PROPERTIES = 1 << 14  # bytes: several times the largest cudaDeviceProp, whose first 256 are the name in every version
NAMES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
FOLDERS = ("/usr/local/cuda/lib64", "/usr/local/cuda/lib", "/usr/local/cuda/targets/*/lib", "/usr/local/cuda-*/lib*")
WHEELS = ("nvidia/cuda_runtime/lib", "nvidia/cu1*/lib")  # below site-packages
SIGNATURES = {
    "cudaGetDeviceCount": (ctypes.POINTER(ctypes.c_int),),
    "cudaRuntimeGetVersion": (ctypes.POINTER(ctypes.c_int),),
    "cudaDriverGetVersion": (ctypes.POINTER(ctypes.c_int),),
    "cudaDeviceGetAttribute": (ctypes.POINTER(ctypes.c_int), ctypes.c_int, ctypes.c_int),
    "cudaGetDeviceProperties": (ctypes.c_void_p, ctypes.c_int),
    "cudaMemGetInfo": (ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)),
    "cudaMalloc": (ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t),
    "cudaFree": (ctypes.c_void_p,),
    "cudaMallocHost": (ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t),
    "cudaFreeHost": (ctypes.c_void_p,),
    "cudaMemcpyAsync": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p),
    "cudaStreamCreate": (ctypes.POINTER(ctypes.c_void_p),),
    "cudaStreamSynchronize": (ctypes.c_void_p,),
    "cudaEventCreate": (ctypes.POINTER(ctypes.c_void_p),),
    "cudaEventRecord": (ctypes.c_void_p, ctypes.c_void_p),
    "cudaEventSynchronize": (ctypes.c_void_p,),
    "cudaEventElapsedTime": (ctypes.POINTER(ctypes.c_float), ctypes.c_void_p, ctypes.c_void_p),
}


class CudaError(RuntimeError):
    """A call of the CUDA runtime that failed, or no runtime."""


class Cuda:
    """The CUDA runtime, with a GPU; CudaError where either is missing. Addresses and handles are plain integers."""

    def __init__(self) -> None:
        self.library = _library()
        for name, arguments in SIGNATURES.items():
            function = getattr(self.library, name, None)
            if function is None:
                raise CudaError("the CUDA runtime has no %s" % name)
            function.argtypes, function.restype = list(arguments), ctypes.c_int
        self.library.cudaGetErrorString.argtypes = [ctypes.c_int]
        self.library.cudaGetErrorString.restype = ctypes.c_char_p
        if not self._number("cudaGetDeviceCount"):
            raise CudaError("no GPU")
        self.stream = self._handle("cudaStreamCreate")

    def version(self) -> str:
        """Of the runtime."""
        return _dotted(self._number("cudaRuntimeGetVersion"))

    def describe(self) -> Dict[str, Any]:
        """The first GPU: name, compute capability, memory in MiB, and the CUDA its driver has."""
        properties = ctypes.create_string_buffer(PROPERTIES)
        self._call("cudaGetDeviceProperties", properties, 0)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return {
            "device": properties.value[:256].decode(errors="replace"),
            "compute_capability": "%d.%d" % tuple(self._attribute(number) for number in CAPABILITY),
            "memory_mib": total.value >> 20,
            "free_mib": free.value >> 20,
            "integrated": bool(self._attribute(INTEGRATED)),
            "cuda": self.version(),
            "driver_cuda": _dotted(self._number("cudaDriverGetVersion")),
        }

    def device_memory(self, size: int) -> int:
        """Address of so many bytes on the GPU."""
        return self._handle("cudaMalloc", size)

    def host_memory(self, size: int) -> int:
        """Address of so many bytes that the GPU copies without a detour (page-locked)."""
        return self._handle("cudaMallocHost", size)

    def free(self, device: int, host: int) -> None:
        """Give both back."""
        self._call("cudaFree", device)
        self._call("cudaFreeHost", host)

    def upload(self, device: int, host: int, size: int) -> None:
        """Copy to the GPU, in the stream."""
        self._call("cudaMemcpyAsync", device, host, size, TO_DEVICE, self.stream)

    def download(self, host: int, device: int, size: int) -> None:
        """Copy from the GPU, in the stream."""
        self._call("cudaMemcpyAsync", host, device, size, TO_HOST, self.stream)

    def wait(self) -> None:
        """Until all that the stream was given is done."""
        self._call("cudaStreamSynchronize", self.stream)

    def event(self) -> int:
        """A mark to put into the stream."""
        return self._handle("cudaEventCreate")

    def record(self, event: int) -> None:
        """Put the mark into the stream here."""
        self._call("cudaEventRecord", event, self.stream)

    def milliseconds(self, start: int, end: int) -> float:
        """Time of the GPU between two marks that were passed."""
        self._call("cudaEventSynchronize", end)
        found = ctypes.c_float()
        self._call("cudaEventElapsedTime", ctypes.byref(found), start, end)
        return found.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self.library, name)(*arguments)
        if code:
            words = self.library.cudaGetErrorString(code) or b"unknown"
            raise CudaError("%s: error %d, %s" % (name, code, words.decode(errors="replace")))

    def _attribute(self, number: int) -> int:
        found = ctypes.c_int()
        self._call("cudaDeviceGetAttribute", ctypes.byref(found), number, 0)
        return found.value

    def _number(self, name: str) -> int:
        found = ctypes.c_int()
        self._call(name, ctypes.byref(found))
        return found.value

    def _handle(self, name: str, *arguments: Any) -> int:
        found = ctypes.c_void_p()
        self._call(name, ctypes.byref(found), *arguments)
        return found.value or 0


def _dotted(number: int) -> str:
    """12060 is CUDA 12.6."""
    return "%d.%d" % (number // 1000, number % 1000 // 10)


def _library() -> Any:
    tried: List[str] = []
    for name in _candidates():
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            tried.append(str(error))
    raise CudaError("the CUDA runtime (libcudart) is not found: %s" % tried[0])


def _candidates() -> Iterator[str]:
    """What the linker finds, then CUDA's usual places, then the wheels."""
    for name in NAMES:
        yield name
    patterns = [os.path.join(folder, "libcudart.so*") for folder in FOLDERS]
    patterns += [os.path.join(path, folder, "libcudart.so*") for path in sys.path for folder in WHEELS]
    for pattern in patterns:
        for found in sorted(glob.glob(pattern), reverse=True):
            yield found
