"""Calibrating a network on 500 images of 224 px against TensorFlow's converter doing it, interleaved in one process.

Both are fed the same images, ready in memory. The converter's time is that between its first request for an image and
its last, so without conversion; ours is the whole call, tracing the graph included. Target: at most 1.2. "histograms"
is what every method but minmax takes. Then the peak of resident memory (Linux) of a process that calibrates, with
histograms, on 100 and on 1,000 images.

    python benchmarks/calibration.py [--data DIR] [--model NAME] [--images 500] [--rounds 3]

Without --data: MobileNetV2 with random weights on noise. With it: DIR/models/NAME.keras on the images of
DIR/data/imagenet_sample300, again and again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
TARGET, SIDE, KEPT = 1.2, 224, 60
MEMORY_IMAGES = (100, 1000)


def network(data: Path | None, name: str) -> Any:
    """The prepared graph."""
    import keras

    from toolkit.engine.flatten import flatten
    from toolkit.engine.prepare import prepare

    if data is not None:
        return prepare(flatten(keras.models.load_model(data / "models" / f"{name}.keras", compile=False))).graph
    keras.utils.set_random_seed(0)
    return prepare(flatten(keras.applications.MobileNetV2((SIDE, SIDE, 3), weights=None))).graph


def pictures(data: Path | None) -> Any:
    """A few images, which are given again and again: (n, 224, 224, 3) float32 in -1..1."""
    if data is None:
        return np.random.default_rng(0).uniform(-1, 1, (KEPT, SIDE, SIDE, 3)).astype(np.float32)
    from PIL import Image

    files = sorted((data / "data" / "imagenet_sample300").glob("**/*.jp*g"))[:KEPT]
    return np.stack([np.asarray(Image.open(file).convert("RGB"), np.float32) / 127.5 - 1 for file in files])


def fed(images: Any, count: int, size: int) -> Iterator[Any]:
    """`count` images in batches."""
    for start in range(0, count, size):
        yield images[np.arange(start, min(start + size, count)) % len(images)]


def ours(graph: Any, images: Any, count: int, *, histograms: bool = False) -> float:
    """Seconds of one calibration."""
    from toolkit.engine.calibrate import batch_size, calibrate

    started, name = time.perf_counter(), graph.inputs[0].name
    size = batch_size(graph)
    found = calibrate(graph, ({name: batch} for batch in fed(images, count, size)), histograms=histograms)
    if found.images != count:
        raise RuntimeError(f"calibrated on {found.images} images, not {count}")
    return time.perf_counter() - started


def theirs(graph: Any, images: Any, count: int) -> float:
    """Seconds between the converter's first and last request for an image."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    call = tf.function(lambda x: graph(x, training=False)).get_concrete_function(tf.TensorSpec((1, *images.shape[1:])))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(call)])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    asked = []

    def representative() -> Iterator[list[Any]]:
        asked.append(time.perf_counter())
        for batch in fed(images, count, 1):
            yield [batch]
        asked.append(time.perf_counter())

    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.convert()
    return asked[-1] - asked[-2]


def peak(arguments: argparse.Namespace, count: int) -> tuple[float, float]:
    """(MiB before, peak MiB while) a fresh process calibrates on `count` images."""
    command = [sys.executable, __file__, "--peak", str(count), "--model", arguments.model]
    command += ["--data", str(arguments.data)] if arguments.data else []
    before, most = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(before), float(most)


def resident(name: str) -> float:
    """This process's resident memory (VmRSS) or its peak (VmHWM), in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def measure(graph: Any, images: Any, count: int) -> None:
    """Print resident memory before a calibration and its peak since then."""
    ours(graph, images, 2, histograms=True)  # what TensorFlow keeps for good
    Path("/proc/self/clear_refs").write_text("5")  # begins the peak anew
    before = resident("VmRSS")
    ours(graph, images, count, histograms=True)
    print(before, resident("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="mobilenet_v2_100_224_imagenet_from_int8")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    graph, images = network(arguments.data, arguments.model), pictures(arguments.data)
    if arguments.peak:
        measure(graph, images, arguments.peak)
        return
    ratios: dict[str, list[float]] = {"minmax": [], "histograms": []}
    for number in range(arguments.rounds):
        own = {name: ours(graph, images, arguments.images, histograms=name == "histograms") for name in ratios}
        other = theirs(graph, images, arguments.images)
        for name, seconds in own.items():
            ratios[name].append(seconds / other)
        times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in own.items())
        print(f"round {number + 1}: {times}, converter {other:.1f} s", flush=True)
    for name, found in ratios.items():
        print(f"{name}: {statistics.median(found):.2f} of the converter's time (target at most {TARGET})")
    for count in MEMORY_IMAGES:
        before, most = peak(arguments, count)
        print(f"{count} images: peak {most:.0f} MiB resident, {before:.0f} MiB before")


if __name__ == "__main__":
    main()
