"""Layers that change images by chance: in inference each gives on what comes in."""

from __future__ import annotations

# image layers of chance whose names do not begin with Random (keras.layers, "Image augmentation layers")
OTHERS = ("AugMix", "CutMix", "MixUp", "RandAugment")
NOT_IDENTITIES = ("RandomCrop",)  # crops the middle in inference


def passes_through(kind: str) -> bool:
    """Whether a layer of that class name is an augmentation that does nothing in inference."""
    return (kind.startswith("Random") and kind not in NOT_IDENTITIES) or kind in OTHERS
