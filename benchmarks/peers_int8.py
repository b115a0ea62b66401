"""Static int8 side by side: this toolkit and its peers, from the same model and images, judged on the same images.

Each tool gets the float model (.keras graph, .tflite or .onnx, as it wants) and the same calibration images; each file
is then run by LiteRT or ONNX Runtime on the same images, in this process. Accuracy with its Wilson interval; points
lost against the float model, and against Edgekit's file of the same format (positive: Edgekit's is better), with the
paired 95% interval; agreement of decisions with the float model; SQNR of logits; best latency of one image on one
thread, all files taking turns; seconds to make the file. A tool of another environment comes by its interpreter.

    python benchmarks/peers_int8.py --data DIR [--models NAME ...] [--images N] [--ours 'ranges = "mse"']
                                    [--peer nncf=PYTHON] [--format .tflite] [--out FILE.md]
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from peers import here
from PIL import Image

from toolkit.core import ExportContext
from toolkit.engine.numeric import decisions, difference
from toolkit.engine.statistics import Paired, paired_interval, wilson
from toolkit.exporters.onnx import ONNX
from toolkit.exporters.tflite import TFLite
from toolkit.sources.keras import Keras

CIFAR = ("mnv2_cifar10_96", "resnet8_cifar10_jpeg", "resnet20_cifar10_jpeg")
IMAGENET = ("mobilenet_v1_025_224_imagenet",)
CALIBRATION = 500
SELECTION = 2000  # test images that choices may be made on; judging begins behind them
CONFIDENCE = 0.95
BATCH = 50
ROUNDS, ROUND_SECONDS = 7, 0.1  # of latency, for each file


@dataclass(frozen=True)
class Data:
    """calibration, images: (n, height, width, 3) float32 as the model takes them. labels: of `images`."""

    calibration: Any
    images: Any
    labels: Any


@dataclass(frozen=True)
class Row:
    """One file and what came of it. failed: why there is none."""

    peer: here.Peer | None
    name: str
    suffix: str
    path: Path
    seconds: float
    outputs: Any = None
    best_ms: float = float("nan")
    failed: str = ""


# ---------------------------------------------------------------- images


def cifar(folder: Path, count: int) -> Data:
    train, test = (np.load(folder / f"cifar10_jpeg_{part}.npz") for part in ("train50k", "test10k"))
    rows = np.arange(SELECTION, min(SELECTION + count, len(test["labels"])))
    return Data(decoded(train, np.arange(CALIBRATION)), decoded(test, rows), test["labels"][rows].astype(np.int64))


def decoded(found: Any, rows: Any) -> Any:
    jpeg, offsets = found["jpeg"], found["offsets"]
    parts = [Image.open(io.BytesIO(jpeg[offsets[row] : offsets[row + 1]].tobytes())) for row in rows]
    return np.stack([np.asarray(part.convert("RGB"), np.float32) for part in parts])


def imagenet(folder: Path, count: int) -> Data:
    with (folder / "imagenet_sample300/labels.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    found = {}
    for role in ("calib", "eval"):
        wanted = [line for line in lines if line["role"] == role][: count if role == "eval" else None]
        pictures = [Image.open(folder / "imagenet_sample300" / line["file"]).convert("RGB") for line in wanted]
        images = np.stack([np.asarray(picture, np.float32) for picture in pictures]) / 127.5 - 1
        found[role] = images.astype(np.float32), np.array([int(line["class_index"]) for line in wanted])
    return Data(found["calib"][0], *found["eval"])


# ---------------------------------------------------------------- running files


Answer = Callable[[Any], Any]


def litert(path: Path) -> Answer:
    """One image at a time, one thread; integers at the ends are ours to make."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    before, after = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def answer(images: Any) -> Any:
        results = []
        for image in into(images, before):
            interpreter.set_tensor(before["index"], image[None])
            interpreter.invoke()
            results.append(interpreter.get_tensor(after["index"])[0])
        return out_of(np.stack(results), after)

    return answer


def into(images: Any, detail: Any) -> Any:
    scale, zero = detail["quantization"]
    if not scale:
        return images
    bounds = np.iinfo(detail["dtype"])
    return np.clip(np.round(images / scale) + zero, bounds.min, bounds.max).astype(detail["dtype"])


def out_of(values: Any, detail: Any) -> Any:
    scale, zero = detail["quantization"]
    return (values.astype(np.float32) - zero) * scale if scale else values


def ort(path: Path) -> Answer:
    """In batches where the file takes them, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    size = BATCH if not isinstance(entry.shape[0], int) else entry.shape[0]

    def answer(images: Any) -> Any:
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        return np.concatenate([session.run(None, {entry.name: part})[0] for part in parts])

    return answer


RUN = {".tflite": litert, ".onnx": ort}


def best_ms(paths: list[Path], image: Any) -> list[float]:
    """Least milliseconds of one image, the files taking turns."""
    answers = [RUN[path.suffix](path) for path in paths]
    best = [float("inf")] * len(paths)
    for _ in range(ROUNDS):
        for number, answer in enumerate(answers):
            end = time.perf_counter() + ROUND_SECONDS
            while (started := time.perf_counter()) < end:
                answer(image)
                best[number] = min(best[number], 1000 * (time.perf_counter() - started))
    return best


# ---------------------------------------------------------------- one model


def compare(name: str, data: Data, models: Path, peers: tuple[here.Peer, ...]) -> list[str]:
    """The lines of one model's table."""
    model = Keras().load(models / f"{name}.keras")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        files = (Path(folder) / "float.tflite", Path(folder) / "float.onnx")
        TFLite().export(model, files[0], ExportContext())
        ONNX(dynamic_batch=True).export(model, files[1], ExportContext())
        given = here.Given(model, *files, data.calibration)
        print(f"{name}: float files in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        rows = [Row(None, "float", path.suffix, path, 0.0) for path in files]
        rows += [made(peer, given, Path(folder) / f"{number}{peer.suffix}") for number, peer in enumerate(peers)]
        rows = [judged(row, data) for row in rows]
        there = [row for row in rows if not row.failed]
        times = dict(
            zip((row.path for row in there), best_ms([row.path for row in there], data.images[:1]), strict=True)
        )
        return table(name, rows, data, given.head, times)


def made(peer: here.Peer, given: here.Given, path: Path) -> Row:
    started = time.perf_counter()
    failed = ""
    try:
        peer.make(given, path)
    except Exception as error:  # whatever a tool makes of the model: told in its line
        failed = (str(error).strip().splitlines() or [type(error).__name__])[0]
    seconds = time.perf_counter() - started
    print(f"  {peer.name} {peer.suffix}: {seconds:.1f} s {failed}", file=sys.stderr)
    return Row(peer, peer.name, peer.suffix, path, seconds, failed=failed)


def judged(row: Row, data: Data) -> Row:
    """The row with its file's answers."""
    if row.failed:
        return row
    try:
        return Row(row.peer, row.name, row.suffix, row.path, row.seconds, RUN[row.suffix](row.path)(data.images))
    except Exception as error:  # a file that its runtime cannot run is a result
        return Row(row.peer, row.name, row.suffix, row.path, row.seconds, failed=f"does not run: {str(error)[:160]}")


def table(name: str, rows: list[Row], data: Data, head: str, times: dict[Path, float]) -> list[str]:
    """Markdown."""
    reference = rows[0].outputs
    right = {row.path: decisions(row.outputs, head) == data.labels for row in rows if not row.failed}
    ours = {row.suffix: right[row.path] for row in rows if row.peer and row.peer.ours and not row.failed}
    lines = [f"### {name}", ""]
    lines += [f"{len(data.calibration)} calibration images, {len(data.labels)} judged, head: {head}.", ""]
    lines += [
        "| tool | file | top-1 % | lost to float, points | lost to Edgekit, points | agreement % | logit SQNR dB "
    ]
    lines[-1] += "| KiB | best ms | made in s |"
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        if row.failed:
            lines += [f"| {row.name} | {row.suffix} | - | {row.failed} | | | | | | {row.seconds:.1f} |"]
            continue
        mine = right[row.path]
        share = wilson(int(mine.sum()), len(mine), CONFIDENCE)
        against = ours.get(row.suffix)
        same = decisions(row.outputs, head) == decisions(reference, head)
        cells = (
            row.name,
            row.suffix,
            f"{100 * mine.mean():.2f} ({100 * float(share.low):.1f} to {100 * float(share.high):.1f})",
            "" if row.peer is None else lost(right[rows[0].path], mine),
            "" if row.peer is None or row.peer.ours or against is None else lost(against, mine),
            f"{100 * same.mean():.2f}",
            f"{difference(reference, row.outputs, head).logits_sqnr_db:.1f}",
            f"{row.path.stat().st_size / 1024:.0f}",
            f"{times[row.path]:.3f}",
            "" if row.peer is None else f"{row.seconds:.1f}",
        )
        lines += ["| " + " | ".join(cells) + " |"]
    return [*lines, "", verdict(rows, right, ours), ""]


def verdict(rows: list[Row], right: dict[Path, Any], ours: dict[str, Any]) -> str:
    """Which tools' files are right more often than Edgekit's of the same format, beyond chance."""
    better = [
        f"{row.name} ({row.suffix})"
        for row in rows
        if row.peer and not row.name.startswith(here.EDGEKIT) and not row.failed and row.suffix in ours
        if float(paired_interval(Paired.of(ours[row.suffix], right[row.path]), CONFIDENCE).high) < 0
    ]
    return f"Significantly better than Edgekit (paired, {CONFIDENCE:.0%}): {', '.join(better) or 'none'}."


def lost(first: Any, second: Any) -> str:
    """Points that the second loses against the first, with the paired interval."""
    pairs = Paired.of(first, second)
    limits = paired_interval(pairs, CONFIDENCE)
    return f"{100 * pairs.drop:+.2f} ({100 * float(limits.low):+.2f} to {100 * float(limits.high):+.2f})"


def elsewhere(text: str) -> here.Peer:
    """--peer NAME=PYTHON."""
    name, _, python = text.partition("=")
    if not Path(python).is_file():
        raise SystemExit(f"--peer {text}: {python or 'nothing'} is no interpreter. Fix: --peer NAME=/path/to/python.")
    return here.elsewhere(name, Path(python))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with models/ and data/")
    parser.add_argument("--models", nargs="+", default=[*CIFAR, *IMAGENET], choices=[*CIFAR, *IMAGENET])
    parser.add_argument("--images", type=int, default=8000, help="images judged on; ImageNet has 200")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help="a tool elsewhere")
    parser.add_argument("--ours", action="append", default=[], metavar="TOML", help="Edgekit with other settings")
    parser.add_argument("--only", default="", help="only the tools whose name holds this")
    parser.add_argument("--format", choices=sorted(RUN), help="only files of this format")
    parser.add_argument("--out", type=Path, help="where the tables are written, too")
    args = parser.parse_args()
    if not args.data:
        print("skipped: name the folder of trained models and images (--data)")
        return
    if not (args.data / "models").is_dir():
        raise SystemExit(f"--data {args.data}: there is no folder models in it.")
    peers = tuple(peer for peer in here.PEERS if args.only in peer.name)
    peers += tuple(peer for text in args.ours for peer in here.ours(text))
    peers += tuple(elsewhere(text) for text in args.peer)
    peers = tuple(peer for peer in peers if args.format in (None, peer.suffix))
    lines: list[str] = []
    for name in args.models:
        data = (imagenet if name in IMAGENET else cifar)(args.data / "data", args.images)
        lines += compare(name, data, args.data / "models", peers)
        if args.out:
            args.out.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
