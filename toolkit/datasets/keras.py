"""The image datasets that Keras downloads: `keras.datasets` by name."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from toolkit.core import Records
from toolkit.datasets.arrays import channels_last, pixels
from toolkit.datasets.labels import index_labels
from toolkit.errors import UnavailableError
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array

# names in the order of the labels: the docstrings of keras.datasets and, for CIFAR-10, its page (Krizhevsky 2009)
_CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}
_COUNTS = {"mnist": 10, "cifar100": 100}


class KerasDatasets(Component):
    """MNIST, Fashion-MNIST, CIFAR-10 or CIFAR-100 as keras.datasets downloads them; subsets train and test."""

    name: Literal["mnist", "fashion_mnist", "cifar10", "cifar100"]
    """The dataset's name in keras.datasets."""

    def load(self) -> Records:
        """The records of both subsets; UnavailableError where they are not here and cannot be downloaded."""
        import numpy as np

        where = f"keras.datasets.{self.name}"
        parts: tuple[tuple[Array, Array], ...]
        try:
            with redirect_stdout(sys.stderr):  # its progress is no result
                parts = import_module(where).load_data()
        except ImportError as error:
            raise UnavailableError(where, f"cannot be imported: {error}", "pip install keras") from error
        except Exception as error:  # keras.utils.get_file raises a bare Exception for a URL it cannot fetch
            fix = "run once where there is a network, or copy its file to ~/.keras/datasets"
            raise UnavailableError(where, f"cannot be downloaded: {str(error).splitlines()[0]}", fix) from error
        images = [channels_last(images, where) for images, _ in parts]
        names = _CLASSES.get(self.name) or tuple(map(str, range(_COUNTS[self.name])))
        labels, classes = index_labels(np.concatenate([truth.reshape(-1) for _, truth in parts]), names, where)
        read, content = pixels(images)
        places = [
            (subset, place)
            for subset, part in zip(("train", "test"), images, strict=True)
            for place in range(len(part))
        ]
        return Records(
            source=where,
            ids=tuple(f"{subset}/{place}" for subset, place in places),
            labels=labels,
            subsets=tuple(subset for subset, _ in places),
            classes=tuple(classes),
            read=read,
            content=content,
        )
