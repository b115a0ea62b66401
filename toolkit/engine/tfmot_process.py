"""The process in which tensorflow-model-optimization trains (`python -m toolkit.tfmot`): its folder, and what it says.

A process of its own: importing the package changes tf.keras for everything beside it.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from keras import layers
from numpy.typing import NDArray

from toolkit.engine import loss, teacher
from toolkit.engine.surgery import rebuild
from toolkit.engine.teaching import Teaching
from toolkit.engine.train import Evaluate, TrainResult
from toolkit.engine.views import Views
from toolkit.errors import InputError, StageError, UnavailableError, UnsupportedError

Array = NDArray[Any]
TAIL_LINES = 8  # of a crashed process, in the message
INSTALL = "pip install 'edgekit[tfmot]'"


def check(model: Any, how: Teaching, where: str) -> None:
    """Raise for what neither of its trainings knows, and where the package is not installed."""
    ends = len(model.inputs), len(model.outputs)
    if ends != (1, 1):
        raise UnsupportedError(where, f"needs one input and one output, got {ends[0]} and {ends[1]}")
    asked = {"augment": how.augment != "none", "views": how.views != Views(), "precision": how.precision != "float32"}
    asked |= {"frozen": bool(how.frozen), "patience": how.patience > 0, "lessons beside the outputs": how.beside.any}
    if wrong := [name for name, is_asked in asked.items() if is_asked]:
        raise UnsupportedError(where, f"does not know {', '.join(wrong)}", "leave that out")
    if importlib.util.find_spec("tensorflow_model_optimization") is None:
        raise UnavailableError(where, "tensorflow-model-optimization is not installed", INSTALL)


def write_job(  # what a training is made of
    folder: Path,
    model: Any,
    images: Array,
    labels: Array,
    *,
    how: Teaching,
    original: Any | None,
    facts: Mapping[str, Any],
) -> None:
    """Everything the process needs. facts: "task", and what that task asks beside `how`."""
    plain = asdict(how)
    for name in ("views", "frozen", "beside"):  # at their defaults, see `check`
        del plain[name]
    (folder / "job.json").write_text(json.dumps({"how": plain, **facts}))
    model.save(folder / "model.keras")
    np.save(folder / "images.npy", np.asarray(images, np.float32))
    answers = np.zeros(0, np.float32)
    if original is not None and how.target.alpha > 0:
        taught = original if isinstance(original, teacher.Teacher) else teacher.of_graph(original, how.head)
        answers = np.asarray(loss.raw(taught.answers(images), taught.head))
    np.savez(folder / "targets.npz", labels=labels, answers=answers)


def trained(folder: Path, told: Callable[[int, float], None], where: str) -> tuple[float, ...]:
    """Loss of each epoch, once the process is through."""
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit.tfmot", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    reader = Thread(target=lambda: tail.extend(process.stderr or ()), daemon=True)
    reader.start()
    losses: list[float] = []
    refused = ""
    try:
        for line in process.stdout or ():
            facts = json.loads(line) if line.startswith("{") else {}
            refused = facts.get("refused", refused)
            if "epoch" in facts:
                losses.append(_finite(float(facts["loss"]), int(facts["epoch"]), where))
                told(int(facts["epoch"]), losses[-1])
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
        reader.join()
    if refused:
        raise UnsupportedError(where, f"TFMOT refuses the model: {refused}", 'set backend = "native"')
    if code:
        raise StageError(where, f"its process ended with code {code}: {' | '.join(map(str.strip, tail))}")
    return tuple(losses)


def train(  # what a training is made of
    task: str,
    model: Any,
    images: Array,
    labels: Array,
    *,
    how: Teaching,
    first: int,
    where: str,
    original: Any | None,
    evaluate: Evaluate | None,
    told: Callable[[int, float], None],
) -> TrainResult:
    """A task whose result is the model with other weights; epochs before `first` are not chosen among."""
    with tempfile.TemporaryDirectory(prefix="edgekit-tfmot-") as name:
        folder = Path(name)
        write_job(folder, model, images, labels, how=how, original=original, facts={"task": task})
        losses = trained(folder, told, where)
        steps = len(images) // min(how.batch_size, len(images))
        return best(folder, model, losses, how=how, evaluate=evaluate, steps=steps, first=first)


def best(  # of a training's epochs
    folder: Path,
    model: Any,
    losses: tuple[float, ...],
    *,
    how: Teaching,
    evaluate: Evaluate | None,
    steps: int,
    first: int,
) -> TrainResult:
    """The epoch that scores best, from `first` on, the later one of equals; without a score the last."""
    curves, number = {"loss": losses}, len(losses)
    if evaluate is None:
        return TrainResult(brought_back(model, folder / f"{number}.npz"), number, None, steps, curves)
    scores = [float(evaluate(brought_back(model, folder / f"{number}.npz"))) for number in range(len(losses) + 1)]
    counted = [number for number in range(first, len(scores)) if not np.isnan(scores[number])]
    if not counted:
        raise StageError("TFMOT", "no epoch that has what was asked for has a score that is a number")
    number = max(counted, key=lambda number: (how.worth(scores[number]), number))
    curves[how.judgement] = tuple(scores[1:])
    return TrainResult(brought_back(model, folder / f"{number}.npz"), number, scores[0], steps, curves)


def brought_back(model: Any, path: Path) -> Any:
    """A Keras 3 model with the weights of an epoch's file."""
    with np.load(path) as arrays:
        found = dict(arrays)
    result = rebuild(model, {})
    for layer in result.layers:
        if layer.weights:
            layer.set_weights(weights_of(layer, found))
    return result


def weights_of(layer: Any, arrays: Mapping[str, Array]) -> list[Array]:
    """A flat layer's new weights, of "weight/LAYER/i"; a separable convolution's are those of its two."""
    names = [layer.name]
    if isinstance(layer, layers.SeparableConv2D):
        names.insert(0, f"{layer.name}_depthwise")
    found = []
    for name in names:
        index = 0
        while f"weight/{name}/{index}" in arrays:
            found.append(arrays[f"weight/{name}/{index}"])
            index += 1
    return found


def _finite(value: float, epoch: int, where: str) -> float:
    if not math.isfinite(value):
        fix = "lower learning_rate, and see that the images hold no NaN"
        raise InputError(where, f"the loss is {value} in epoch {epoch}", fix)
    return value
