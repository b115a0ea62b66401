"""What an engine became: layers and data types, read from the engine inspector's JSON or from a detailed build log.

The reading itself is the worker's (`toolkit/worker/trt_layers.py`), which counts layers where the engine runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from toolkit.errors import InputError
from toolkit.worker.trt_layers import Layer as Layer  # noqa: PLC0414  (part of this page)
from toolkit.worker.trt_layers import counted, of_json, of_log


def layers(text: str, *, where: str = "layer information") -> tuple[Layer, ...]:
    """Layers of the inspector's JSON, of TensorRT up to 10 or 11, detailed or names alone; InputError for no such."""
    try:
        return tuple(of_json(text))
    except ValueError as error:  # of the JSON itself, too
        problem = f"cannot be read: {str(error).splitlines()[0]}"
        raise InputError(where, problem, "export it again, with --profilingVerbosity=detailed") from None


def logged_layers(log: str) -> tuple[Layer, ...]:
    """Layers that a detailed build log lists: what there is where no engine can be opened, as without a GPU."""
    return tuple(of_log(log))


def precision(found: Iterable[Layer]) -> Mapping[str, int]:
    """Layers by the type they compute in, most first; empty for an engine that tells names alone.

    A layer counts under the narrowest type it reads. Reformats and constants compute nothing and are left out.
    """
    return counted(list(found))


def reformats(found: Iterable[Layer]) -> tuple[str, ...]:
    """Names of the layers that only bring data into another type or order: what islands of int8 cost."""
    return tuple(layer.name for layer in found if layer.type.lower().startswith("reformat"))


def convolutions(found: Iterable[Layer]) -> Mapping[str, int]:
    """Convolutions by the type they compute in."""
    return counted([layer for layer in found if layer.convolution])
