"""Latency without AMX: few edge devices have it, and with it XNNPACK's int8 kernels compute 64 channels at once.

Linux gives a process AMX only when asked to (arch_prctl, ARCH_REQ_XCOMP_PERM). A filter that refuses this makes
libraries take the kernels they have for AVX-512, as they would on a processor that has no AMX.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import struct
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from toolkit import kernels

NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2  # linux/prctl.h, linux/seccomp.h
ARCH_PRCTL, REQ_XCOMP_PERM, EPERM = 158, 0x1023, 1  # x86-64's number of the call; asm/prctl.h
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF: load 32 bits at, jump if equal (else so many further), return
NUMBER, ARGUMENT = 0, 16  # where struct seccomp_data has the call's number, and its first argument
REFUSE, ALLOW = 0x00050000 | EPERM, 0x7FFF0000
PROGRAM = (
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 0, 3, ARCH_PRCTL),
    (LOAD, 0, 0, ARGUMENT),
    (EQUAL, 0, 1, REQ_XCOMP_PERM),
    (RETURN, 0, 0, REFUSE),
    (RETURN, 0, 0, ALLOW),
)


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("count", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def is_here() -> bool:
    return "amx_int8" in kernels.flags()


def forbid() -> None:
    """For this process and its children, before a library asks; there is no way back."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in PROGRAM))
    program = Program(len(PROGRAM), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


def without(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call gives in a process of its own that has no AMX."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=forbid) as pool:
        return pool.submit(call, *arguments).result()
