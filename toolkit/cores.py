"""Processor cores by the numbers they give of themselves, and how much they can compute at most.

Numbers: Linux, arch/arm64/include/asm/cputype.h, and util-linux, lscpu-arm.c. Rates follow from the 128-bit pipes that
a core has for multiplying (Arm's software optimization guides): 4 products of float32, 8 of float16, 8 of int8, with
dot products 16, with i8mm 32 in each. They are ceilings and unverified: no guide was at hand when they were written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from toolkit.hardware import Arithmetic

# (implementer, part): 0x41 Arm, 0x51 Qualcomm's names of Arm's cores, 0x4e NVIDIA
NAMES: Mapping[tuple[int, int], str] = {
    **{(0x41, part): f"Cortex-{name}" for part, name in {
        0xC05: "A5", 0xC07: "A7", 0xC08: "A8", 0xC09: "A9", 0xC0D: "A17", 0xC0E: "A17", 0xC0F: "A15",
        0xD01: "A32", 0xD03: "A53", 0xD04: "A35", 0xD05: "A55", 0xD06: "A65", 0xD07: "A57", 0xD08: "A72", 0xD09: "A73",
        0xD0A: "A75", 0xD0B: "A76", 0xD0D: "A77", 0xD0E: "A76AE", 0xD41: "A78", 0xD42: "A78AE", 0xD44: "X1",
        0xD46: "A510", 0xD47: "A710", 0xD48: "X2", 0xD4B: "A78C", 0xD4C: "X1C", 0xD4D: "A715", 0xD4E: "X3",
        0xD80: "A520", 0xD81: "A720", 0xD82: "X4", 0xD85: "X925", 0xD87: "A725",
    }.items()},
    (0x41, 0xB76): "ARM1176",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x51, 0x800): "Cortex-A73",
    (0x51, 0x801): "Cortex-A53",
    (0x51, 0x802): "Cortex-A75",
    (0x51, 0x803): "Cortex-A55",
    (0x51, 0x804): "Cortex-A76",
    (0x51, 0x805): "Cortex-A55",
    (0x4E, 0x004): "Carmel",
}  # fmt: skip
PIPES: Mapping[str, int] = {
    **dict.fromkeys(("Cortex-A35", "Cortex-A53", "Cortex-A55", "Cortex-A57", "Cortex-A72", "Cortex-A73"), 1),
    **dict.fromkeys(("Cortex-A510", "Cortex-A520"), 1),
    **dict.fromkeys(("Cortex-A75", "Cortex-A76", "Cortex-A76AE", "Cortex-A77", "Cortex-A78", "Cortex-A78AE"), 2),
    **dict.fromkeys(("Cortex-A78C", "Cortex-A710", "Cortex-A715", "Cortex-A720", "Cortex-A725"), 2),
    **dict.fromkeys(("Neoverse-N1", "Neoverse-N2"), 2),
    **dict.fromkeys(("Cortex-X1", "Cortex-X1C", "Cortex-X2", "Cortex-X3", "Cortex-X4"), 4),
    **dict.fromkeys(("Neoverse-V1", "Neoverse-V2"), 4),
}
# as /proc/cpuinfo has them -> as profiles do; in the order they are written
ARM_ISA: Mapping[str, str] = {
    "asimd": "neon",
    "neon": "neon",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
    "sme": "sme",
}
X86_ISA: Mapping[str, str] = {
    name: name
    for name in ("avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16",
                 "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16")
}  # fmt: skip


def isa(flags: Collection[str]) -> tuple[str, ...]:
    """The extensions that decide on kernels, of the flags of /proc/cpuinfo."""
    known = {**ARM_ISA, **X86_ISA}
    return tuple(dict.fromkeys(name for flag, name in known.items() if flag in flags))


def rates(core: str, extensions: Collection[str]) -> dict[Arithmetic, float]:
    """Multiply-accumulates of one core in one cycle, at most; empty for a core that is not known."""
    if core in PIPES:
        pipes = PIPES[core]
        int8 = 32 if "i8mm" in extensions else 16 if "dotprod" in extensions else 8
        half: dict[Arithmetic, float] = {"float16": 8.0 * pipes} if "fp16" in extensions else {}
        return {"float32": 4.0 * pipes, **half, "int8": float(int8 * pipes)}
    return _x86(extensions)


def _x86(extensions: Collection[str]) -> dict[Arithmetic, float]:
    """Two pipes of fused multiply-add as wide as the registers; products of int8 alike, in pairs without VNNI."""
    if "avx512f" in extensions:
        return {"float32": 32.0, "int8": 128.0 if "avx512_vnni" in extensions else 64.0}
    if "avx2" in extensions and "fma" in extensions:
        return {"float32": 16.0, "int8": 64.0 if "avx_vnni" in extensions else 32.0}
    return {}
