"""The signature of a file that is no Keras graph, completed by running it once: shapes, finite answers, the head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.core import Kind, Meaning, Model, QuantSpec, Signature, TensorSpec
from toolkit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


def model(
    kind: Kind, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[str], meanings: Sequence[Meaning | None]
) -> Model:
    """The model of a checked file. inputs: specs as the file has them; outputs: names; meanings: None for the others.

    Raises InputError where its runtime cannot run it, an output has no batch dimension, or an answer is not finite.
    """
    from toolkit.engine import foreign

    ends = [foreign.Port(spec.name, spec.layout == "NCHW") for spec in inputs]
    network = foreign.Network(kind, path, tuple(ends), tuple(outputs))
    answers = foreign.answers(network, _noise(inputs))
    specs = []
    for name, answer, meaning in zip(outputs, answers, meanings, strict=True):
        _check(path, name, answer)
        specs.append(
            TensorSpec(name, (inputs[0].shape[0], *answer.shape[1:]), "float32", _meaning(meaning, answer.shape))
        )
    return Model(kind, path, Signature(tuple(inputs), tuple(specs)), quant=QuantSpec())


def chosen(head: str, found: Sequence[Meaning | None]) -> list[Meaning | None]:
    """What outputs mean: the first as asked, unless that is "auto"; else by the operator that computes them."""
    first: Meaning | None = found[0] if head == "auto" else head  # type: ignore[assignment]
    return [first, *found[1:]]


def of_operator(name: str) -> Meaning:
    """What an output is by the operator it comes from, in TensorFlow's, TFLite's and ONNX's names."""
    kind = name.lower()
    return "softmax" if kind == "softmax" else "sigmoid" if kind in ("sigmoid", "logistic") else "logits"


def rows(inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The specs with one row where the batch is open."""
    return tuple(replace(spec, shape=(spec.shape[0] or 1, *spec.shape[1:])) for spec in inputs)


def _noise(inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    """One seeded example of each input, channels last, as all data here."""
    import numpy as np

    generator = np.random.default_rng(0)
    found = {}
    for spec in rows(inputs):
        n, *others = (size or 1 for size in spec.shape)
        shape = (n, others[1], others[2], others[0]) if spec.layout == "NCHW" else (n, *others)
        found[spec.name] = generator.random(shape, dtype=np.float32)
    return found


def _check(path: Path, name: str, answer: Any) -> None:
    import numpy as np

    values = np.asarray(answer)
    if values.ndim < 2:
        raise InputError(str(path), f"output {name!r} has shape {list(values.shape)}, not one row for each image")
    if not np.isfinite(values).all():
        raise InputError(str(path), f"output {name!r} is NaN or infinite on an image of noise", "look at its weights")


def _meaning(meaning: Meaning | None, shape: Sequence[int]) -> Meaning:
    """One sigmoid or several."""
    if meaning == "sigmoid" and shape[-1] != 1:
        return "sigmoids"
    return meaning or "logits"
