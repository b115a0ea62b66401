"""Real handwritten digits that come with scikit-learn: 1,797 images of 8 x 8, values 0..16.

Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (its test set).
"""

from __future__ import annotations

from toolkit.core import Records
from toolkit.errors import UnavailableError
from toolkit.schema import Component


class Digits(Component):
    """scikit-learn's handwritten digits, no download."""

    def load(self) -> Records:
        """1,797 records; images are (8, 8, 1) uint8, 0..16 as they come."""
        import numpy as np

        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            fix = "pip install scikit-learn"
            raise UnavailableError("datasets.digits", "scikit-learn is not installed", fix) from error
        bunch = load_digits()
        images = bunch.images.astype(np.uint8)[..., None]
        return Records(
            source="scikit-learn digits",
            ids=tuple(f"digit-{index:04d}" for index in range(len(images))),
            labels=bunch.target.astype(np.int64),
            subsets=("",) * len(images),
            classes=tuple(str(digit) for digit in range(10)),
            read=lambda index: images[index],
            content=lambda index: images[index].tobytes(),
        )
