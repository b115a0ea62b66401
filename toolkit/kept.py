"""What a run keeps in samples/ beside its manifest: answers and labels of its test images, raw samples of latency."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.core import Meaning
from toolkit.judging import EXAMPLE_IDS
from toolkit.plan import REFERENCE
from toolkit.runs import Manifest
from toolkit.split_records import Labelled, labelled

if TYPE_CHECKING:
    from toolkit.checks.accuracy import Predictions
    from toolkit.core import Array

UNREADABLE = (OSError, EOFError, ValueError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise of damaged arrays: cut off, empty, said to be encrypted, of a size that nobody has."""


class AbsentError(ValueError):
    """Something that the run did not keep, or keeps no longer."""


class Kept:
    """Of one run; every method raises one of UNREADABLE where the thing is not there or is damaged."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.samples, self.manifest = folder / "samples", manifest
        self._labelled: Labelled | None = None

    def predictions(self, subject: str, device: str = "") -> Predictions:
        """What the original, or a file on a device, answered."""
        from toolkit.checks.accuracy import Predictions

        return Predictions(subject, self._outputs(f"{subject}@{device}" if device else subject), self.head(), device)

    def head(self) -> Meaning:
        """What the first output means."""
        details = self.manifest.details.get(REFERENCE)
        if details is None or not details.head:
            raise AbsentError("the manifest does not say what the original's output means")
        head: Any = details.head
        return head  # type: ignore[no-any-return]

    def labels(self) -> Labelled:
        """The test split without its images."""
        if self._labelled is None:
            found = labelled(self.samples, self.manifest.classes)
            if found is None:
                raise AbsentError("samples/ holds no labels of the test images (an earlier version kept none)")
            if found.fingerprint != self.fingerprint():
                raise AbsentError("the labels in samples/ are of other images than the run's test split")
            self._labelled = found
        return self._labelled

    def fingerprint(self) -> str:
        """Of the test split; "" where the manifest names none."""
        return next((record.fingerprint for record in self.manifest.data if record.split == "test"), "")

    def processes(self, subject: str, device: str) -> tuple[Array, ...]:
        """Raw samples of each process, in nanoseconds."""
        return tuple(self._arrays(f"{subject}@{device}.latency.npz").values())

    def _outputs(self, name: str) -> Array:
        arrays = self._arrays(f"{name}.answers.npz")
        first = next((array for key, array in arrays.items() if key != EXAMPLE_IDS), None)
        if first is None:
            raise AbsentError(f"samples/{name}.answers.npz holds no answers")
        return first

    def _arrays(self, name: str) -> dict[str, Array]:
        import numpy as np

        path = self.samples / name
        if not path.is_file():
            raise AbsentError(f"samples/{name} is not there")
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
