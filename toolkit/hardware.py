"""What is known of a device's hardware, and where from: facts in words, and the numbers that estimates compute from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from toolkit.schema import Component

Arithmetic = Literal["float32", "float16", "int8"]
Family = Literal["", "board", "phone", "microcontroller", "computer", "jetson", "gpu"]
FAMILIES = ("board", "phone", "microcontroller", "computer", "jetson", "gpu")


class Fact(Component):
    """One thing known of the device, and where from."""

    name: Annotated[str, Field(min_length=1)]
    """What it is: "cpu", "clock", "memory bandwidth", ..."""
    value: str | int | float | bool
    """How much or which."""
    unit: str = ""
    """Unit of a number: "GHz", "GB/s", ..."""
    source: Annotated[str, Field(min_length=1)]
    """The page it was read from, or "unverified"."""


class KernelFact(Component):
    """One way in which a runtime's kernels ask for other integers than the scheme alone, and where that is known.

    saturating: products of uint8 and int8 are added in 16 bits and overflow, so that weights must be 7-bit.
    dense_per_tensor: dense layers are computed with the first weight scale alone, so that they must have one.
    symmetric_only: static int8 activations must be symmetric (zero point 0); files with others are not read.
    """

    fact: Literal["saturating", "dense_per_tensor", "symmetric_only"]
    """Which of them."""
    before: str = ""
    """First version of the runtime that is free of it, where there is one; a runtime of no known version is not."""
    source: Annotated[str, Field(min_length=1)]
    """The page it was read from, or "unverified"."""


class Vela(Component):
    """What Vela, the compiler for Ethos-U, is told of the accelerator and the memories around it (its own names)."""

    accelerator: Annotated[str, Field(pattern=r"^ethos-u\d\d-\d{2,4}$")]
    """Its `--accelerator-config`: "ethos-u55-256"."""
    system_config: Annotated[str, Field(min_length=1)]
    """Its `--system-config`, of the shipped vela.ini: clocks and memories."""
    memory_mode: Annotated[str, Field(min_length=1)]
    """Its `--memory-mode`: what lies in which memory."""


class Processor(Component):
    """Alike cores that compute: the ceiling of a roofline is cores x clock x MACs a cycle (Williams et al., 2009)."""

    name: Annotated[str, Field(min_length=1)]
    """Which: "Cortex-A72"."""
    kind: Literal["cpu", "gpu", "npu"] = "cpu"
    """What it is."""
    cores: Annotated[int, Field(ge=1)]
    """How many of them."""
    clock_ghz: Annotated[float, Field(gt=0)]
    """Highest clock, in GHz."""
    macs_per_cycle: dict[Arithmetic, Annotated[float, Field(gt=0)]]
    """Multiply-accumulate operations of one core in one cycle, at most, by arithmetic; what is absent it has not."""
    isa: tuple[str, ...] = ()
    """Instruction-set extensions that decide on kernels: "neon", "dotprod", "i8mm", "avx512_vnni", "helium", ..."""
    vela: Vela | None = None
    """Of an Ethos-U: how its compiler is called, whose estimate is then used."""
    source: Annotated[str, Field(min_length=1)]
    """The page these were read from, or "unverified"."""


class Published(Component):
    """A latency that somebody else published of this device: quoted, never measured by Edgekit."""

    model: Annotated[str, Field(min_length=1)]
    """Which model: "mobilenet_v2_1.0_224"."""
    arithmetic: Arithmetic
    """Of its file."""
    milliseconds: Annotated[float, Field(gt=0)]
    """One inference of one image."""
    processor: str = ""
    """Name of the processor that computed it; the first one by default."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads, where that was said."""
    runtime: str = ""
    """Runtime and its version, where that was said."""
    source: Annotated[str, Field(min_length=1)]
    """The page it was read from."""


class NoRuntime(Component):
    """Something that computes on the device and that Edgekit has no runtime for: known, never measured."""

    name: Annotated[str, Field(min_length=1)]
    """What it is called: "Edge TPU", "Core ML (Neural Engine)"."""
    why: Annotated[str, Field(min_length=1)]
    """What it would need, to follow its name in a sentence."""


class Efficiency(Component):
    """What share of a processor's ceiling layers of a kind reach here: found by `edgekit device calibrate`."""

    layers: Literal["convolution", "depthwise", "dense", "other", "memory"]
    """Which layers; "memory" is the share of the bandwidth that those reach which it limits."""
    arithmetic: Arithmetic | None = None
    """What they compute in; nothing for "memory"."""
    processor: Annotated[str, Field(min_length=1)]
    """Name of the processor."""
    share: Annotated[float, Field(gt=0, le=100)]
    """Of the ceiling; above 1 where the ceiling is understated."""
    spread: Annotated[float, Field(ge=1, le=1000)]
    """The true share lies between share / spread and share x spread, nine times of ten."""
    source: Annotated[str, Field(min_length=1)]
    """The measurements it was fitted to."""
