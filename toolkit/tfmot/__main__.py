"""The process that trains: importing tensorflow-model-optimization changes tf.keras for everything beside it.

    python -m toolkit.tfmot FOLDER

FOLDER holds job.json, model.keras, images.npy and targets.npz. What was learned after each epoch comes into it, as
0.npz (before the first), 1.npz and so on. On stdout one JSON object a line: {"epoch": number, "loss": mean}, or
{"refused": why} where the package does not take the model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from toolkit.errors import UnsupportedError


def main(folder: Path) -> None:
    """Carry, prepare as the task has it, train, write."""
    import keras
    import numpy as np

    from toolkit.engine.carry_back import carry_back
    from toolkit.engine.teaching import Teaching
    from toolkit.tfmot import clusters, qat, sparsity, training

    job = json.loads((folder / "job.json").read_text())
    how = Teaching(**training.rebuilt(job["how"]))
    images = np.load(folder / "images.npy", mmap_mode="r")
    targets = dict(np.load(folder / "targets.npz"))
    try:
        old = carry_back(keras.models.load_model(folder / "model.keras", compile=False))
        if job["task"] == "qat":
            task: Any = qat.Task(old, images[: job["observed"]])
        else:
            task = clusters.Task(old, how) if job["task"] == "clusters" else sparsity.Task(old, how)
    except (RuntimeError, ValueError, UnsupportedError) as error:  # how the package says which layer it does not take
        say(refused=(str(error).strip().splitlines() or [type(error).__name__])[0])
        return

    def keep(number: int, loss: float | None) -> None:
        arrays: dict[str, Any] = dict(task.learned())
        np.savez(folder / f"{number}.npz", **arrays)
        if loss is not None:
            say(epoch=number, loss=loss)

    keep(0, None)
    training.fit(task.model, images, targets, how, keep)


def say(**facts: Any) -> None:
    """One line to who started this process."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
