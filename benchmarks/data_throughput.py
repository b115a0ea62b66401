"""Images per second from a folder of JPEG files to float32 batches, against a plain tf.data pipeline, and peak memory.

tf.data: list files, map(read, decode_jpeg, resize) in parallel, batch, prefetch. Both resize to the same size: `equal`
is the same work (bilinear, antialiased), `plain` what `tf.image.resize` does unless told otherwise (bilinear between
four neighbours, which drops pixels when it shrinks: less work, other images). Blocks of all alternate in one process so
that they share the machine's moods; the ratio is that of the best blocks, as on a shared machine only the undisturbed
ones compare; CPU time stands beside. Target: at least 0.95.

Memory: the peak of fresh processes that read all images of a folder of 2,000 and of 20,000. Target: flat.

    python benchmarks/data_throughput.py [--folder IMAGES] [--size 224] [--memory 20000]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TARGET = 0.95
BATCH = 64

MEMORY = """
import json, sys
from pathlib import Path
from toolkit.core import Preprocessing
from toolkit.datasets.folder import Folder
from toolkit.datasets.splits import SplitSpec, make_splits

def peak():  # not ru_maxrss, which a process inherits from the one that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

size = int(sys.argv[2])
records = Folder(path=Path(sys.argv[1])).load()
listed = peak()
splits = make_splits(records, None, SplitSpec(test=0.1), Preprocessing(size=(size, size)), 0)
looked = peak()
count = sum(len(batch.ids) for split in splits.present() for batch in split.batches(64))
print(json.dumps({"images": count, "listed": listed, "looked": looked, "read": peak()}))
"""


def photographs(folder: Path, count: int, side: int) -> None:
    """JPEG files that compress as photographs do: smooth fields of colour with some noise."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = rng.integers(0, 256, (side // 16 + 2, side // 16 + 2, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((side * 4 // 3, side), Image.Resampling.BICUBIC))
        noisy = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
        path = folder / f"class{index % 10}" / f"{index:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(path, quality=90)


def many_small(folder: Path, count: int, side: int = 128) -> None:
    """Many files of a few KB, each different."""
    import io

    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(1)
    for index in range(count):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side)).save(stream, "JPEG")
        path = folder / f"class{index % 10}" / f"{index:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stream.getvalue())


# ---------------------------------------------------------------- the two pipelines


def edgekit(folder: Path, size: int) -> Callable[[], Iterator[Any]]:
    """Edgekit's stream over all images, as a training pass reads them."""
    from toolkit.core import Preprocessing
    from toolkit.datasets import stream
    from toolkit.datasets.folder import Folder

    stream._CACHE_BYTES = 0  # what is measured is decoding
    records = Folder(path=folder).load()
    wanted = Preprocessing(size=(size, size), crop="none", scale=(1 / 255,))
    split = stream.Split("train", records, range(len(records)), wanted)
    return lambda: (batch.inputs["image"] for batch in split.batches(BATCH))


def tf_data(folder: Path, size: int, antialias: bool) -> Callable[[], Iterator[Any]]:
    """The pipeline of TensorFlow's own guide to loading images."""
    import tensorflow as tf

    def read(path: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.image.resize(image, (size, size), antialias=antialias) / 255.0

    files = sorted(str(path) for path in folder.glob("*/*.jp*g"))
    found = tf.data.Dataset.from_tensor_slices(files).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    batches = found.batch(BATCH).prefetch(tf.data.AUTOTUNE)
    return batches.as_numpy_iterator  # type: ignore[no-any-return]


def throughput(folder: Path, size: int, rounds: int) -> dict[str, Any]:
    """Images per second of each, by the best block, the medians beside."""
    pipelines = {
        "edgekit": edgekit(folder, size),
        "plain": tf_data(folder, size, antialias=False),
        "equal": tf_data(folder, size, antialias=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in pipelines}
    cpu: dict[str, list[float]] = {name: [] for name in pipelines}
    for block in range(rounds + 1):
        for name, pipeline in pipelines.items():
            started, before = time.perf_counter(), time.process_time()
            count = sum(len(batch) for batch in pipeline())
            if block:  # the first warms up: file cache, tracing, autotuning
                rates[name].append(count / (time.perf_counter() - started))
                cpu[name].append((time.process_time() - before) / count * 1000)
    best = {name: max(found) for name, found in rates.items()}
    found: dict[str, Any] = {"images": count, "size": size}
    for name in pipelines:
        found[f"{name}_images_per_s"] = round(best[name], 1)
        found[f"{name}_median"] = round(statistics.median(rates[name]), 1)
        found[f"{name}_cpu_ms_per_image"] = round(min(cpu[name]), 3)
    for name in ("plain", "equal"):
        pairs = (own / other for own, other in zip(rates["edgekit"], rates[name], strict=True))
        found[f"ratio_to_{name}"] = round(best["edgekit"] / best[name], 3)
        found[f"ratio_to_{name}_median_of_pairs"] = round(statistics.median(pairs), 3)
    return found


def memory(folder: Path, count: int, size: int) -> dict[str, Any]:
    """Peak MiB of reading a tenth of the images, and all of them."""
    found: dict[str, Any] = {}
    for images in (count // 10, count):
        made = folder / str(images)
        many_small(made, images)
        command = [sys.executable, "-c", MEMORY, str(made), str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[str(images)] = {name: round(value, 1) for name, value in json.loads(done.stdout).items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a folder of JPEG files in class folders; generated by default")
    parser.add_argument("--images", type=int, default=400, help="images to generate")
    parser.add_argument("--side", type=int, default=375, help="height of the generated images, in pixels")
    parser.add_argument("--size", type=int, default=224, help="height and width of the batches")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", type=int, default=20_000, help="images of the memory test; 0 leaves it out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch) / "photographs"
        if not args.folder:
            photographs(folder, args.images, args.side)
        found = throughput(folder, args.size, args.rounds)
        if args.memory:
            found["peak_mib"] = memory(Path(scratch) / "many", args.memory, 128)
    met = {f"met_{name}": found[f"ratio_to_{name}"] >= TARGET for name in ("equal", "plain")}
    print(json.dumps({**found, "target": TARGET, **met}, indent=1))


if __name__ == "__main__":
    main()
