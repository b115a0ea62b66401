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


def main(folder: Path) -> None:
    """Carry, quantize, train, write."""
    import keras
    import numpy as np
    import tensorflow_model_optimization as tfmot

    from toolkit.engine.carry_back import carry_back
    from toolkit.engine.teaching import Teaching
    from toolkit.tfmot import training

    job = json.loads((folder / "job.json").read_text())
    how = Teaching(**training.rebuilt(job["how"]))
    images = np.load(folder / "images.npy", mmap_mode="r")
    targets = dict(np.load(folder / "targets.npz"))
    old = carry_back(keras.models.load_model(folder / "model.keras", compile=False))
    try:
        model = tfmot.quantization.keras.quantize_model(old)
    except (RuntimeError, ValueError) as error:  # how the package says which layer it does not take
        say(refused=(str(error).strip().splitlines() or [type(error).__name__])[0])
        return
    training.start_ranges(model, training.observe(old, images[: job["observed"]]))

    def keep(number: int, loss: float | None) -> None:
        arrays: dict[str, Any] = dict(training.learned(model, old))
        np.savez(folder / f"{number}.npz", **arrays)
        if loss is not None:
            say(epoch=number, loss=loss)

    keep(0, None)
    training.fit(model, images, targets, how, keep)


def say(**facts: Any) -> None:
    """One line to who started this process."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
