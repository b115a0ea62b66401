"""Channels as atoms: which of them are one (union-find), which weights run along them, and which must stay.

A tensor is the array of atoms along its last axis; along its last few axes where a Reshape or a Permute has spread the
channels over several. Along all axes before those, the atoms are the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Atoms = NDArray[np.intp]


class Opaque(Exception):  # noqa: N818 - a signal between rules and groups.py, never an error of the user
    """Says, in words that follow the layer's name, why a rule cannot follow the channels."""


@dataclass(frozen=True, eq=False)
class Binding:
    """An axis of a weight and the atom at each of its positions; the fields are those of groups.Slot."""

    layer: str
    weight: str
    index: int
    axis: int
    side: Literal["out", "in", "through"]
    atoms: Atoms


class Channels:
    """Union-find over atoms, the weights bound to them, and why some must stay.

    reasons: frozen atom -> why. opaque: layer that could not be followed -> why.
    """

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.reasons: dict[int, str] = {}
        self.slots: dict[tuple[str, int, int], Binding] = {}
        self.opaque: dict[str, str] = {}

    def fresh(self, count: int, reason: str = "") -> Atoms:
        """New atoms, frozen if a reason is given."""
        atoms = np.arange(len(self.parent), len(self.parent) + count, dtype=np.intp)
        self.parent.extend(atoms.tolist())
        if reason:
            self.freeze(atoms, reason)
        return atoms

    def join(self, first: Atoms, second: Atoms) -> None:
        """Make the atoms at equal places one channel."""
        for a, b in zip(first.ravel().tolist(), second.ravel().tolist(), strict=True):
            if a != b:
                low, high = sorted((self.root(a), self.root(b)))
                self.parent[high] = low

    def root(self, atom: int) -> int:
        """The smallest atom joined with this one."""
        while self.parent[atom] != atom:
            self.parent[atom] = atom = self.parent[self.parent[atom]]
        return atom

    def roots(self, atoms: Atoms) -> Atoms:
        return np.array([self.root(atom) for atom in atoms.ravel().tolist()], np.intp).reshape(atoms.shape)

    def axes(self, atoms: Atoms) -> list[int]:
        """The axes along which there are different channels."""
        if atoms.ndim == 1:
            return [0]
        roots = self.roots(atoms)
        return [axis for axis in range(atoms.ndim) if (roots != roots.take([0], axis)).any()]

    def along_last(self, atoms: Atoms) -> Atoms:
        """The atoms along the last axis, where channels differ along no other."""
        if any(axis < atoms.ndim - 1 for axis in self.axes(atoms)):
            raise Opaque("reads channels that do not lie along its last axis")
        last: Atoms = atoms.reshape(-1, atoms.shape[-1])[0]
        return last

    def freeze(self, atoms: Atoms, reason: str) -> None:
        for atom in atoms.ravel().tolist():
            self.reasons.setdefault(atom, reason)

    def bind(self, layer: Any, weight: Any, axis: int, atoms: Atoms, side: Literal["in", "through"]) -> None:
        """Tie an axis of a weight to atoms. At a second use of the layer they are joined with those of the first."""
        if weight.shape[axis] != len(atoms):
            raise Opaque(f"has a {weight.name} of shape {tuple(weight.shape)} for {len(atoms)} channels")
        self._tie(Binding(layer.name, weight.name, _index(layer, weight), axis % len(weight.shape), side, atoms))

    def make(self, layer: Any, weight: Any, axis: int) -> Atoms:
        """The atoms a layer makes, one for each position of its weight's output axis: the same ones at each use."""
        index, axis = _index(layer, weight), axis % len(weight.shape)
        bound = self.slots.get((layer.name, index, axis))
        atoms = bound.atoms if bound else self.fresh(weight.shape[axis])
        self._tie(Binding(layer.name, weight.name, index, axis, "out", atoms))
        if layer.bias is not None:
            self._tie(Binding(layer.name, "bias", _index(layer, layer.bias), 0, "out", atoms))
        return atoms

    def bind_setting(self, layer: Any, setting: str, atoms: Atoms, *, axis: int = 0) -> None:
        """Tie a number among the layer's settings that counts these atoms (entry `axis` where it is a tuple)."""
        self._tie(Binding(layer.name, setting, -1, axis, "through", atoms))

    def _tie(self, binding: Binding) -> None:
        first = self.slots.setdefault((binding.layer, binding.index, binding.axis), binding)
        self.join(first.atoms, binding.atoms)


def _index(layer: Any, weight: Any) -> int:
    """Place of a variable in layer.weights; Opaque where the layer computes it (LoRA, quantized kernels)."""
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        raise Opaque("is quantized or carries a LoRA branch")
    return [own is weight for own in layer.weights].index(True)
