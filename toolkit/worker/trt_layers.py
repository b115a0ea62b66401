"""Layers of an engine and their data types: from the inspector's JSON (both forms of it), or from a detailed build log.

TensorRT up to 10 writes `"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"`, 11 writes
`"Datatype": "Half"`; an engine built without detailed verbosity has names alone. TensorRT-RTX prints the same in words.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

# how TensorRT spells the types, the longer spellings first
SPELLINGS = (
    ("bfloat16", r"BF16|BFloat16"),
    ("float16", r"FP16|Half|Float16"),
    ("float8", r"FP8|Float8"),
    ("float4", r"FP4|Float4"),
    ("float32", r"FP32|Float32|Float"),
    ("uint8", r"UINT8"),
    ("int8", r"INT8"),
    ("int4", r"INT4"),
    ("int32", r"INT32"),
    ("int64", r"INT64"),
    ("bool", r"BOOL"),
)
SPELLED = tuple((name, re.compile(r"\b(?:%s)\b" % words, re.IGNORECASE)) for name, words in SPELLINGS)
NARROW = ("float4", "int4", "float8", "int8", "float16", "bfloat16", "float32")  # the narrowest input is computed in
MOVES = ("reformat", "noop", "constant", "copy", "signal", "wait")  # layers that compute nothing


class Layer(NamedTuple):
    """One layer of an engine. inputs, outputs: data types in our words; empty where the engine holds names alone."""

    name: str
    type: str
    inputs: Tuple[str, ...] = ()
    outputs: Tuple[str, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether it only moves or rewrites data."""
        return self.type.lower().startswith(MOVES)

    @property
    def convolution(self) -> bool:
        """Whether it is a convolution; `correlation` is the compiler's word for one."""
        kind = self.type.lower()
        return "conv" in kind or "correlation" in kind

    @property
    def precision(self) -> str:
        """The narrowest type of what it reads, or writes where it reads nothing; "" where nothing is known."""
        types = self.inputs or self.outputs
        return next((name for name in NARROW if name in types), types[0] if types else "")


def of_json(text: str) -> List[Layer]:
    """Layers of the inspector's JSON, ours or trtexec's --exportLayerInfo; ValueError for anything else."""
    found = json.loads(text)
    if not isinstance(found, dict) or not isinstance(found.get("Layers"), list):
        raise ValueError("no engine inspector JSON: it has no list of Layers")
    return [_layer(item) for item in found["Layers"]]


def of_log(text: str) -> List[Layer]:
    """Layers of the block of a detailed build log that begins with `Layers:`; none where the log has no such block."""
    found = []
    for line in text.splitlines():
        match = re.match(r"Name: (?P<name>.*?), LayerType: (?P<type>[^,]*), (?P<rest>.*)", line)
        if match:
            inputs, outputs = (_between(match["rest"], key) for key in ("Inputs", "Outputs"))
            found.append(Layer(match["name"], match["type"], inputs, outputs))
    return found


def counted(layers: List[Layer]) -> Dict[str, int]:
    """How many layers compute in which type, most first; layers that only move data, or of no known type, left out."""
    counts: Dict[str, int] = {}
    for layer in layers:
        if layer.precision and not layer.moves:
            counts[layer.precision] = counts.get(layer.precision, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def words(layers: List[Layer]) -> str:
    """`21 of 22 layers int8, 1 float32`, or why that cannot be said."""
    counts = counted(layers)
    if not counts:
        return "%d layers, whose types the engine does not tell" % len(layers)
    total, parts = sum(counts.values()), ["%d %s" % (count, name) for name, count in counts.items()]
    first, count = next(iter(counts.items()))
    return ", ".join(["%d of %d layers %s" % (count, total, first)] + parts[1:])


def sparse_words(log: str) -> List[str]:
    """What a build log says of 2:4 sparsity, as one line: which layers could use sparse kernels, and which do.

    TensorRT 8 says "Layers eligible for sparse math: A, B" and "... picked sparse implementation for layers: A", later
    ones "Found 2 layer(s) eligible to use sparse tactics: A, B" and "Chose 1 layer(s) using sparse tactics: A".
    """
    able, used = (_sparse_layers(log, words) for words in (r"eligible (?:for|to use)", r"picked|Chose"))
    if able is None and used is None:
        return []
    named = ": %s" % ", ".join(used) if used else ""
    return ["2:4: %d layers could use sparse kernels, %d do%s" % (len(able or ()), len(used or ()), named)]


def _sparse_layers(log: str, words: str) -> Optional[List[str]]:
    match = re.search(r"\(Sparsity\)[^\n]*(?:%s)[^\n:]*:([^\n]*)" % words, log)
    return [name.strip() for name in match[1].split(", ") if name.strip()] if match else None


def _layer(item: Any) -> Layer:
    if isinstance(item, str):
        return Layer(item, "")
    if not isinstance(item, dict) or not isinstance(item.get("Name"), str):
        raise ValueError("no engine inspector JSON: a layer has no Name")
    kind = str(item.get("LayerType", ""))
    parameter = str(item.get("ParameterType", ""))  # TensorRT 8 and 10: LayerType CaskConvolution, this Convolution
    if "conv" in parameter.lower() and "conv" not in kind.lower():
        kind = "%s (%s)" % (kind, parameter)
    return Layer(item["Name"], kind, _types(item.get("Inputs")), _types(item.get("Outputs")))


def _types(tensors: Any) -> Tuple[str, ...]:
    if not isinstance(tensors, list):
        return ()
    spelled = [str(tensor.get("Datatype") or tensor.get("Format/Datatype") or "") for tensor in tensors]
    return tuple(name for name in map(_type, spelled) if name)


def _type(text: str) -> str:
    return next((name for name, spelling in SPELLED if spelling.search(text)), "")


def _between(text: str, key: str) -> Tuple[str, ...]:
    """Types of the tensors of `Inputs: [ {...}, {...}]`; brackets inside hold shapes and never braces."""
    match = re.search(r"\b%s: \[((?: ?\{[^{}]*\},?)*)\]" % key, text)
    spelled = re.findall(r"Datatype: (\w+)", match[1]) if match else []
    return tuple(name for name in map(_type, spelled) if name)
