"""Static int8 side by side: this toolkit and its peers, from the same model and images, judged on the same images.

Each tool gets the float model (.keras graph, .tflite or .onnx, as it wants) and the same calibration images; each file
is then run by LiteRT or ONNX Runtime on the same images, in this process. Accuracy with its Wilson interval; points
lost against the float model, and against Edgekit's file of the same format (positive: Edgekit's is better), with the
paired 95% interval; agreement of decisions with the float model; SQNR of logits; best latency of one image on one
thread, all files of a model taking turns; seconds to make the file. Edgekit is the shipped recipe's `quantize`. A tool
of another environment comes by its interpreter; its seconds begin with its process.

One command is one run, of all models. A tool that fails, or is not done in --limit seconds, has a line that says why.
--out is written anew after each file. --files keeps the files and their answers: the same command goes on after what a
run that was cut short has left there, and the table says which rows those are.

    python benchmarks/peers_int8.py --data DIR [--models NAME ...] [--images N] [--calibration N]
                                    [--ours 'ranges = "mse"'] [--peer nncf=PYTHON ...] [--limit SECONDS]
                                    [--only WORD] [--format .tflite] [--files DIR] [--out FILE.md]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from peers import here
from peers.running import RUN, answers, best_ms
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
LIMIT = 1200.0  # seconds for a tool of another environment
WORDS = 160  # characters of a reason


@dataclass(frozen=True)
class Data:
    """calibration, images: (n, height, width, 3) float32 as the model takes them. labels: of `images`."""

    calibration: Any
    images: Any
    labels: Any


@dataclass(frozen=True)
class Row:
    """One file and what came of it. failed: why there is none. kept: an earlier run has made it."""

    peer: here.Peer | None
    name: str
    suffix: str
    path: Path
    seconds: float
    outputs: Any = None
    best_ms: float = float("nan")
    failed: str = ""
    kept: bool = False


@dataclass(frozen=True)
class Found:
    """All rows of one model; the first is the float model's."""

    name: str
    head: str
    data: Data
    rows: list[Row]

    @property
    def there(self) -> list[Row]:
        return [row for row in self.rows if not row.failed]

    def right(self, row: Row) -> Any:
        return decisions(row.outputs, self.head) == self.data.labels

    def agreement(self, row: Row) -> float:
        """Percent of decisions that are the float model's."""
        same = decisions(row.outputs, self.head) == decisions(self.rows[0].outputs, self.head)
        return 100 * float(same.mean())

    def sqnr(self, row: Row) -> float:
        return difference(self.rows[0].outputs, row.outputs, self.head).logits_sqnr_db

    def ours(self, suffix: str) -> Row | None:
        return next((row for row in self.there if row.peer and row.peer.ours and row.suffix == suffix), None)


# ---------------------------------------------------------------- images


def cifar(folder: Path, count: int, calibration: int = CALIBRATION) -> Data:
    train, test = (np.load(folder / f"cifar10_jpeg_{part}.npz") for part in ("train50k", "test10k"))
    rows = np.arange(SELECTION, min(SELECTION + count, len(test["labels"])))
    return Data(decoded(train, np.arange(calibration)), decoded(test, rows), test["labels"][rows].astype(np.int64))


def decoded(found: Any, rows: Any) -> Any:
    jpeg, offsets = found["jpeg"], found["offsets"]
    parts = [Image.open(io.BytesIO(jpeg[offsets[row] : offsets[row + 1]].tobytes())) for row in rows]
    return np.stack([np.asarray(part.convert("RGB"), np.float32) for part in parts])


def imagenet(folder: Path, count: int, calibration: int = CALIBRATION) -> Data:
    with (folder / "imagenet_sample300/labels.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    found = {}
    for role in ("calib", "eval"):
        wanted = [line for line in lines if line["role"] == role][: count if role == "eval" else calibration]
        pictures = [Image.open(folder / "imagenet_sample300" / line["file"]).convert("RGB") for line in wanted]
        images = np.stack([np.asarray(picture, np.float32) for picture in pictures]) / 127.5 - 1
        found[role] = images.astype(np.float32), np.array([int(line["class_index"]) for line in wanted])
    return Data(found["calib"][0], *found["eval"])


# ---------------------------------------------------------------- one model


def compare(
    name: str, data: Data, models: Path, peers: tuple[here.Peer, ...], *, folder: Path, tell: Callable[[Found], None]
) -> Found:
    """One model's rows; tell: gets what there is after each file."""
    source = models / f"{name}.keras"
    model = Keras().load(source)
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    files = (folder / "float.tflite", folder / "float.onnx")
    TFLite().export(model, files[0], ExportContext())
    ONNX(dynamic_batch=True).export(model, files[1], ExportContext())
    given = here.Given(model, *files, data.calibration)
    mark = f"{hashlib.sha256(source.read_bytes()).hexdigest()} {len(data.calibration)} {len(data.labels)}"
    print(f"{name}: float files in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    rows = [judged(Row(None, "float", path.suffix, path, 0.0), data) for path in files]
    for peer in peers:
        path = folder / f"{slug(peer.name)}{peer.suffix}"
        row = kept(peer, path, mark)
        if not row:
            row = judged(made(peer, given, path), data)
            keep(row, mark)
        rows.append(row)
        tell(Found(name, given.head, data, rows))
    found = Found(name, given.head, data, rows)
    paths = [row.path for row in found.there]
    times = dict(zip(paths, best_ms(paths, data.images[:1]), strict=True))
    return replace(found, rows=[replace(row, best_ms=times.get(row.path, row.best_ms)) for row in rows])


def slug(name: str) -> str:
    return "_".join(re.findall("[a-z0-9]+", name.lower()))


def made(peer: here.Peer, given: here.Given, path: Path) -> Row:
    started, spent = time.perf_counter(), 0.0
    failed = ""
    try:
        spent = peer.make(given, path) or 0.0
    except Exception as error:  # whatever a tool makes of the model: told in its line
        failed = reason(error, path)
    seconds = time.perf_counter() - started + spent
    print(f"  {peer.name} {peer.suffix}: {seconds:.1f} s {failed}", file=sys.stderr)
    return Row(peer, peer.name, peer.suffix, path, seconds, failed=failed)


def judged(row: Row, data: Data) -> Row:
    """The row with its file's answers."""
    if row.failed:
        return row
    started = time.perf_counter()
    try:
        row = replace(row, outputs=answers(row.path, data.images))
    except Exception as error:  # a file that its runtime cannot run is a result
        return replace(row, failed=f"does not run: {reason(error, row.path)}")
    print(f"    judged in {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return row


def reason(error: Exception, path: Path) -> str:
    """Its first line, fit for a cell of a table."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.replace(f"{path.parent}{os.sep}", "").replace("|", "/")[:WORDS]


def keep(row: Row, mark: str) -> None:
    """A file's answers and seconds, beside it."""
    if not row.failed:
        np.save(f"{row.path}.npy", row.outputs)
        Path(f"{row.path}.json").write_text(json.dumps({"mark": mark, "seconds": row.seconds}))


def kept(peer: here.Peer, path: Path, mark: str) -> Row | None:
    """A row that a run on the same model and images has left here."""
    told = Path(f"{path}.json")
    if not told.is_file() or (facts := json.loads(told.read_text()))["mark"] != mark:
        return None
    print(f"  {peer.name} {peer.suffix}: there already", file=sys.stderr)
    return Row(peer, peer.name, peer.suffix, path, facts["seconds"], np.load(f"{path}.npy"), kept=True)


# ---------------------------------------------------------------- tables


def table(found: Found) -> list[str]:
    """Markdown."""
    lines = [f"### {found.name}", ""]
    lines += [f"{len(found.data.calibration)} calibration images, {len(found.data.labels)} judged, head: {found.head}."]
    if earlier := [row.name + row.suffix for row in found.rows if row.kept]:
        lines[-1] += f" Made by an earlier run: {', '.join(earlier)}."
    lines += ["", "| tool | file | top-1 % | lost to float, points | lost to Edgekit, points | agreement % "]
    lines[-1] += "| logit SQNR dB | KiB | best ms | made in s |"
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    float_right = found.right(found.rows[0])
    for row in found.rows:
        if row.failed:
            lines += [f"| {row.name} | {row.suffix} | - | {row.failed} | | | | | | {row.seconds:.1f} |"]
            continue
        mine, against = found.right(row), found.ours(row.suffix)
        share = wilson(int(mine.sum()), len(mine), CONFIDENCE)
        cells = (
            row.name,
            row.suffix,
            f"{100 * mine.mean():.2f} ({100 * float(share.low):.1f} to {100 * float(share.high):.1f})",
            "" if row.peer is None else lost(float_right, mine),
            "" if row.peer is None or row.peer.ours or against is None else lost(found.right(against), mine),
            f"{found.agreement(row):.2f}",
            f"{found.sqnr(row):.1f}",
            f"{row.path.stat().st_size / 1024:.0f}",
            f"{row.best_ms:.3f}",
            "" if row.peer is None else f"{row.seconds:.1f}",
        )
        lines += ["| " + " | ".join(cells) + " |"]
    return [*lines, "", *verdicts(found), ""]


def verdicts(found: Found) -> list[str]:
    """For each of Edgekit's settings, which tools' files are right more often than its own of the same format."""
    mine = [row for row in found.there if row.name.startswith(here.EDGEKIT)]
    others = [row for row in found.there if row.peer and row not in mine]
    lines = []
    for name in dict.fromkeys(row.name for row in mine):
        pairs = [(row, other) for row in mine if row.name == name for other in others if other.suffix == row.suffix]
        better = [
            f"{other.name} ({other.suffix}) by {lost(found.right(other), found.right(row))}"
            for row, other in pairs
            if float(paired_interval(_pairs(found, row, other), CONFIDENCE).high) < 0
        ]
        verdict = ", ".join(better) or f"none of {len(pairs)}"
        lines += [f"- {found.name}, significantly better than {name} (paired, {CONFIDENCE:.0%}): {verdict}."]
    return lines


def _pairs(found: Found, row: Row, other: Row) -> Paired:
    return Paired.of(found.right(row), found.right(other))


def lost(first: Any, second: Any) -> str:
    """Points that the second loses against the first, with the paired interval."""
    pairs = Paired.of(first, second)
    limits = paired_interval(pairs, CONFIDENCE)
    return f"{100 * pairs.drop:+.2f} ({100 * float(limits.low):+.2f} to {100 * float(limits.high):+.2f})"


def overview(all_found: list[Found]) -> list[str]:
    """All models side by side: what files lose, and what they cost."""
    tops = [f"{found.name} ({100 * found.right(found.rows[0]).mean():.1f})" for found in all_found]
    lines = ["### Points lost to float (paired), SQNR of logits", "", *_wide(all_found, tops, _loss)]
    lines += ["", "### Agreement with float, KiB, milliseconds, seconds to make"]
    lines += ["", *_wide(all_found, [found.name for found in all_found], _cost), ""]
    for found in all_found:
        lines += verdicts(found)
        lines += [f"- {found.name}, {row.name} ({row.suffix}): {row.failed}" for row in found.rows if row.failed]
    return [*lines, ""]


def _wide(all_found: list[Found], tops: list[str], cell: Callable[[Found, Row], str]) -> list[str]:
    """A line for each tool and format, a column for each model."""
    lines = ["| | " + " | ".join(tops) + " |", "|---" * (1 + len(tops)) + "|"]
    for name, suffix in dict.fromkeys((row.name, row.suffix) for found in all_found for row in found.rows):
        cells = []
        for found in all_found:
            row = next((row for row in found.rows if (row.name, row.suffix) == (name, suffix)), None)
            cells += ["" if row is None else "no file" if row.failed else cell(found, row)]
        lines += [f"| {name} `{suffix}` | " + " | ".join(cells) + " |"]
    return lines


def _loss(found: Found, row: Row) -> str:
    points = lost(found.right(found.rows[0]), found.right(row)).replace("+", "")
    return f"{points}, {found.sqnr(row):.1f} dB"


def _cost(found: Found, row: Row) -> str:
    cost = f"{found.agreement(row):.1f}%, {row.path.stat().st_size / 1024:.0f}, {row.best_ms:.3f}"
    return cost if row.peer is None else f"{cost}, {row.seconds:.0f}"


# ---------------------------------------------------------------- command line


def elsewhere(text: str, limit: float) -> here.Peer:
    """--peer NAME=PYTHON."""
    name, _, python = text.partition("=")
    if not Path(python).is_file():
        raise SystemExit(f"--peer {text}: {python or 'nothing'} is no interpreter. Fix: --peer NAME=/path/to/python.")
    return here.elsewhere(name, Path(python), limit)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with models/ and data/")
    parser.add_argument("--models", nargs="+", default=[*CIFAR, *IMAGENET], choices=[*CIFAR, *IMAGENET])
    parser.add_argument("--images", type=int, default=8000, help="images judged on; ImageNet has 200")
    parser.add_argument("--calibration", type=int, default=CALIBRATION, help="images; ImageNet has 100")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help="a tool elsewhere")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds that such a tool may take for one file")
    parser.add_argument("--ours", action="append", default=[], metavar="TOML", help="Edgekit with other settings")
    parser.add_argument("--only", default="", help="of the tools of this environment, those whose name holds this")
    parser.add_argument("--format", choices=sorted(RUN), help="only files of this format")
    parser.add_argument(
        "--files", type=Path, help="folder that keeps the files; those that are there are not made again"
    )
    parser.add_argument("--out", type=Path, help="where the tables are written, too")
    return parser.parse_args()


def asked(args: argparse.Namespace) -> tuple[here.Peer, ...]:
    peers = tuple(peer for peer in here.PEERS if args.only in peer.name)
    peers += tuple(peer for text in args.ours for peer in here.asked(text))
    peers += tuple(elsewhere(text, args.limit) for text in args.peer)
    return tuple(peer for peer in peers if args.format in (None, peer.suffix))


def main() -> None:
    args = arguments()
    if not args.data:
        print("skipped: name the folder of trained models and images (--data)")
        return
    if not (args.data / "models").is_dir():
        raise SystemExit(f"--data {args.data}: there is no folder models in it.")
    peers = asked(args)
    whole: list[Found] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            data = (imagenet if name in IMAGENET else cifar)(args.data / "data", args.images, args.calibration)
            files = (args.files or Path(folder)).resolve() / name
            whole.append(
                compare(
                    name, data, args.data / "models", peers, folder=files, tell=lambda now: write([*whole, now], args)
                )
            )
            write(whole, args)
        print("\n".join(report(whole)))


def report(whole: list[Found]) -> list[str]:
    return [line for found in whole for line in table(found)] + overview(whole)


def write(whole: list[Found], args: argparse.Namespace) -> None:
    if args.out:
        args.out.write_text("\n".join(report(whole)))


if __name__ == "__main__":
    main()
