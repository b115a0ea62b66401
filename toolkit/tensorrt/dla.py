"""The deep learning accelerators of some Jetson modules: what they can take, and what ran on them.

Limits: TensorRT developer guide, "Working with DLA", and NVIDIA's support matrices. A layer that DLA cannot take goes
to the GPU without a word in the result, so the log and the layers of the engine are read. Not verified on a device.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from toolkit.errors import InputError
from toolkit.tensorrt.types import BuildSpec, ShapeRange

# cores by device profile; a module that is not here has none
CORES = {
    "jetson-agx-xavier": 2,
    "jetson-xavier-nx": 2,
    "jetson-orin-nx-8": 1,
    "jetson-orin-nx-16": 2,
    "jetson-agx-orin-32": 2,
    "jetson-agx-orin-64": 2,
}
LARGEST_BATCH, LARGEST_DIMENSION, MOST_LOADABLES = 4096, 8192, 16
LAST_OF_10, FIRST_OF_11 = (10, 7), (11, 4)  # 10.7 is the last 10.x with DLA, 11.4 has it again for AGX Orin
MARKED = re.compile(r"\[(?P<where>Dla|Gpu)Layer\]\s*(?P<name>.+?),?\s*$")
NOT_TAKEN = re.compile(
    r"not supported on DLA|Switching (?:this layer's device type )?to GPU|DLA.*fall|DLA subgraph|only \d+ subgraphs",
    re.I,
)


@dataclass(frozen=True)
class Placement:
    """Layers by where they run, as TensorRT names them. reasons: what it said on layers it took from DLA.

    A DLA part stands for all its layers under one name: {ForeignNode[first...last]}.
    """

    on_dla: tuple[str, ...]
    on_gpu: tuple[str, ...]
    reasons: tuple[str, ...] = ()

    def in_words(self) -> str:
        """One sentence on what fell back."""
        if not self.on_dla:
            return f"nothing runs on DLA; on the GPU: {', '.join(self.on_gpu) or 'nothing that was named'}"
        parts = f"{len(self.on_dla)} part{'s' if len(self.on_dla) > 1 else ''} on DLA"
        return f"{parts}, on the GPU: {', '.join(self.on_gpu)}" if self.on_gpu else f"{parts}, nothing on the GPU"


def refusals(spec: BuildSpec, inputs: Mapping[str, tuple[int, ...]], *, board: str, version: str) -> tuple[str, ...]:
    """Why a build for DLA cannot work, in words; () where nothing known speaks against it, or no DLA is asked for.

    Args:
        inputs: shapes by name, 0 or less for a free dimension; the first dimension is the batch.
        board: device profile.
    """
    return tuple(_refusals(spec, inputs, board, version)) if spec.dla_core is not None else ()


def doubts(version: str, *, quantized: bool) -> tuple[str, ...]:
    """What a build for DLA may go through with and disappoint in. quantized: the graph holds Q/DQ."""
    if quantized and _known(version) < FIRST_OF_11:
        return (f"DLA takes Q/DQ well from TensorRT 11.4 on: under {version} expect such layers on the GPU",)
    return ()


def placement(log: str) -> Placement:
    """Where layers run, from the log of a build with --useDLACore: [DlaLayer] and [GpuLayer] lines (8.0 to 10.x)."""
    marked = [found for line in log.splitlines() if (found := MARKED.search(line))]
    said = (re.sub(r"^(\[[^\]]*\]\s*)+", "", line).strip() for line in log.splitlines() if NOT_TAKEN.search(line))
    return Placement(
        on_dla=tuple(dict.fromkeys(item["name"] for item in marked if item["where"] == "Dla")),
        on_gpu=tuple(dict.fromkeys(item["name"] for item in marked if item["where"] == "Gpu")),
        reasons=tuple(dict.fromkeys(said)),
    )


def placement_in_layers(text: str, where: str = "layer info") -> Placement:
    """Where layers run, from the inspector's JSON of an engine built with detailed profiling: LayerType DLA."""
    try:
        layers = json.loads(text)["Layers"]
        named = [(str(item["Name"]), str(item["LayerType"])) for item in layers]
    except (ValueError, KeyError, TypeError):
        fix = "build with --profilingVerbosity=detailed, and export the layers of that engine"
        raise InputError(where, "no layers with their types", fix) from None
    return Placement(
        tuple(name for name, kind in named if kind == "DLA"), tuple(name for name, kind in named if kind != "DLA")
    )


def loadables(found: Placement) -> str:
    """What to know of an engine with as many parts as one core holds; "" for one with fewer."""
    if len(found.on_dla) >= MOST_LOADABLES:
        return f"{len(found.on_dla)} parts on DLA, a core holds {MOST_LOADABLES}: further parts go to the GPU"
    return ""


def _refusals(spec: BuildSpec, inputs: Mapping[str, tuple[int, ...]], board: str, version: str) -> Iterator[str]:
    cores, known = CORES.get(board, 0), _known(version)
    if spec.dla_core is None or spec.dla_core >= cores:
        yield f"{board} has {cores or 'no'} DLA core{'' if cores == 1 else 's'}, core {spec.dla_core} was asked for"
    if LAST_OF_10 < known < FIRST_OF_11:
        yield f"TensorRT {version} has no DLA: 10.7 is the last of 10.x that has it, 11.4 has it for AGX Orin"
    if known >= FIRST_OF_11 and not board.startswith("jetson-agx-orin"):
        yield f"TensorRT {version} has DLA on AGX Orin only"
    if not spec.strongly_typed and not (spec.fp16 or spec.int8):
        yield "DLA computes in float16 and int8 only: ask for one of them"
    for name, shape in inputs.items():
        yield from _shape_refusals(name, shape, spec.shapes.get(name))


def _shape_refusals(name: str, shape: tuple[int, ...], given: ShapeRange | None) -> Iterator[str]:
    fixed = given.usual if given else shape
    if given and not given.least == given.usual == given.greatest:
        yield f"input {name} ranges from {given.least} to {given.greatest}: DLA takes one shape, so all three alike"
    elif any(size <= 0 for size in fixed):
        yield f"input {name} has free dimensions {shape}: DLA takes one shape, give it as least, usual and greatest"
    if fixed and fixed[0] > LARGEST_BATCH:
        yield f"input {name} has a batch of {fixed[0]}, DLA takes at most {LARGEST_BATCH}"
    wide = [size for size in fixed[1:] if size > LARGEST_DIMENSION]
    if wide:
        yield f"input {name} has a dimension of {wide[0]}, DLA takes at most {LARGEST_DIMENSION}"


def _known(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
