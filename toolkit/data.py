"""A recipe's data section to its four splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.core import Preprocessing

if TYPE_CHECKING:
    from toolkit.datasets.splits import Splits
    from toolkit.recipe import DataSpec


def load_splits(spec: DataSpec, preprocessing: Preprocessing, *, seed: int, input_name: str = "image") -> Splits:
    """Train, selection, calibration and test, drawn the same way for the same seed.

    Raises InputError for an empty, unreadable or mislabelled dataset, or counts it cannot give.
    """
    from toolkit.datasets.splits import make_splits
    from toolkit.errors import InputError

    if spec.records is None:
        raise InputError("recipe", "data.path is not given", "give --data PATH")
    held_out = spec.held_out.component.load() if spec.held_out else None
    return make_splits(
        spec.records.component.load(),
        held_out,
        spec.splits,
        preprocessing=preprocessing,
        seed=seed,
        input_name=input_name,
    )
