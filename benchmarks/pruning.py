"""What pruning and recovery cost real models in accuracy, and give in MACs and LiteRT latency, beside simpler ways.

Each way takes a share of a model's MACs away and is recovered by the same loop: as many epochs, the same teacher (the
original), the same images. `edgekit tiles` weighs steps by what this machine's kernels compute; `uniform l1` is the
plain way; `from scratch` has the shape of Edgekit's and new weights; `tfmot` is tensorflow-model-optimization's
sparsity, at as many weights as Edgekit's shape has; it knows no views, so that it alone sees each image as it is.
Nothing is trained or chosen on the images judged. CIFAR-10: the training images train, the first 2,000 test images
choose the epoch, the other 8,000 are judged. TrashNet: its train, val and test.

Every run adds a line to --records, so that a table may be made in several sittings; a run that is there is not done
again, one that was cut short goes on from its last epoch. Latency is measured by --table, all files of a model taking
turns.

    python benchmarks/pruning.py --data DIR --records FILE.jsonl [--models NAME ...] [--ways NAME ...]
                                 [--removed 0.25 0.5 0.7] [--seeds 0 1 2] [--epochs N] [--rate R] [--train N]
    python benchmarks/pruning.py --data DIR --records FILE.jsonl --table [--out FILE.md]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import peers_int8 as side
from peers import here
from peers.running import best_ms

from toolkit.core import ExportContext, Model, PassContext
from toolkit.devices import load_device
from toolkit.engine.cost import cost
from toolkit.engine.numeric import decisions
from toolkit.engine.predict import predict_arrays
from toolkit.engine.statistics import bootstrap_mean
from toolkit.exporters.tflite import TFLite
from toolkit.passes.distill import Distill
from toolkit.passes.prune import Prune
from toolkit.pruning import multiple_of
from toolkit.sources.keras import Keras

CIFAR = ("resnet20_cifar10_jpeg", "resnet8_cifar10_jpeg", "mnv2_cifar10_96")
TRASHNET = ("mnv2_trashnet6_160",)
OURS, SCRATCH, TFMOT = "edgekit", "from scratch", "tfmot"
HERE = "this-machine"
# what a way asks of `prune`; each has the rest at its defaults
WAYS: dict[str, dict[str, Any]] = {
    OURS: {"importance": "fisher", "ranking": "global", "reconstruct": True},
    "edgekit 2 steps": {"importance": "fisher", "ranking": "global", "reconstruct": True, "steps": 2},
    "edgekit 16": {"importance": "fisher", "ranking": "global", "reconstruct": True, "round_to": 16},
    "edgekit tiles": {"importance": "fisher", "ranking": "global", "reconstruct": True, "device": HERE},
    "uniform l1": {"importance": "l1", "ranking": "local"},
    "uniform l2": {"importance": "l2", "ranking": "local"},
    "taylor": {"importance": "taylor", "ranking": "global"},
    "taylor reconstructed": {"importance": "taylor", "ranking": "global", "reconstruct": True},
    "fisher": {"importance": "fisher", "ranking": "global"},
    "bn_gamma": {"importance": "bn_gamma", "ranking": "global"},
    "activation": {"importance": "activation", "ranking": "global"},
    "random": {"importance": "random"},
}
CALIBRATION = 1024


@dataclass(frozen=True)
class Split:
    """images: (n, height, width, 3) float32; labels: (n,)."""

    images: Any
    labels: Any


@dataclass(frozen=True)
class Given:
    """A model and its images. train teaches and calibrates, selection chooses, judged judges."""

    name: str
    model: Model
    train: Split
    selection: Split
    judged: Split


@dataclass(frozen=True)
class Run:
    """One line of the records. rate, batch, alpha: of the recovery. macs, parameters: shares that are left.

    before, after: percent, of recovery; selection: after it, of the images that choose, by which settings may be
    compared. right: hexadecimal bits, which of the judged images the recovered model gets right. minutes: of two
    processors.
    """

    model: str
    way: str
    removed: float
    seed: int
    epochs: int
    rate: float
    batch: int
    alpha: float
    train: int
    augment: str
    precision: str
    macs: float
    parameters: float
    original: float
    before: float
    after: float
    minutes: float
    right: str
    file: str
    selection: float | None = None


class Images(here.Images):
    """A split with its own labels."""

    def __init__(self, name: str, split: Split) -> None:
        super().__init__(name, split.images)
        self.labels = split.labels
        # names what it holds: passes keep what they have worked out by it
        self.fingerprint = hashlib.sha256(np.ascontiguousarray(split.labels).data).hexdigest()


# ---------------------------------------------------------------- images


def given(name: str, data: Path, count: int) -> Given:
    model = Keras().load(data / "models" / f"{name}.keras")
    train, selection, judged = _trashnet(data) if name in TRASHNET else _cifar(data, count)
    return Given(name, model, train, selection, judged)


@cache
def _cifar(data: Path, count: int) -> tuple[Split, Split, Split]:
    train, test = (np.load(data / "data" / f"cifar10_jpeg_{part}.npz") for part in ("train50k", "test10k"))
    rows = (train, np.arange(count)), (test, np.arange(side.SELECTION)), (test, np.arange(side.SELECTION, 10_000))
    first, second, third = (_split(*pair) for pair in rows)
    return first, second, third


@cache
def _trashnet(data: Path) -> tuple[Split, Split, Split]:
    found = np.load(data / "data" / "trashnet6_160.npz")
    first, second, third = (_split(found, np.flatnonzero(found["split"] == part)) for part in ("train", "val", "test"))
    return first, second, third


def _split(found: Any, rows: Any) -> Split:
    return Split(side.decoded(found, rows), found["labels"][rows].astype(np.int64))


# ---------------------------------------------------------------- one run


def right(model: Model, split: Split) -> Any:
    """Which images of a split a model decides rightly."""
    outputs = predict_arrays(model.graph, {model.signature.inputs[0].name: split.images})[0]
    return decisions(outputs, model.head) == split.labels


def context(work: Given, seed: int) -> PassContext:
    """What a pass may use. The seed draws the calibration images from the training ones."""
    name = work.model.signature.inputs[0].name
    rows = np.sort(np.random.default_rng(seed).permutation(len(work.train.labels))[:CALIBRATION])
    drawn = Split(work.train.images[rows], work.train.labels[rows])
    return PassContext(
        seed=seed,
        original=work.model,
        train=Images(name, work.train),
        selection=Images(name, work.selection),
        calibration=Images(name, drawn),
        evaluate=lambda model: float(right(model, work.selection).mean()),
        multiple=multiple_of(load_device(HERE)),
        emit=lambda told: print(told.text, file=sys.stderr) if told.keep else None,
    )


def pruned(work: Given, way: str, removed: float, seed: int) -> Model:
    """The model after its cut, before any training."""
    options = WAYS[OURS if way in (SCRATCH, TFMOT) else way]
    found = Prune(macs=1 - removed, **options).run(work.model, context(work, seed)).model
    return found if way != SCRATCH else replace(found, graph=renewed(found.graph, seed))


def renewed(graph: Any, seed: int) -> Any:
    """The same shape, its weights as they are before any training; constants of the input's scaling stay."""
    keras.utils.set_random_seed(seed)
    new = keras.models.clone_model(graph)
    for layer in new.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.set_weights(graph.get_layer(layer.name).get_weights())
            layer.finalize_state()
    return new


class Clock:
    """Minutes of two processors that a pass takes, kept beside its checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._started = folder, spent()
        self._file = folder / "minutes"
        folder.mkdir(parents=True, exist_ok=True)
        self._before = float(self._file.read_text()) if self._file.exists() else 0.0

    @property
    def minutes(self) -> float:
        return self._before + (spent() - self._started) / 120

    def tell(self, told: Any) -> None:
        self._file.write_text(f"{self.minutes}")
        if told.keep:
            print(f"{time.strftime('%H:%M:%S')} {told.text}", file=sys.stderr, flush=True)


def cut(work: Given, way: str, removed: float, seed: int, folder: Path) -> Model:
    """What `pruned` gives, kept for a run that goes on."""
    path = folder / "cut.keras"
    if not path.exists():
        pruned(work, way, removed, seed).graph.save(path)
    return replace(work.model, graph=keras.models.load_model(path, compile=False))


def recovered(work: Given, model: Model, args: argparse.Namespace, seed: int, clock: Clock) -> Model:
    how = Distill(
        epochs=args.epochs,
        learning_rate=args.rate,
        batch_size=args.batch,
        alpha=args.alpha,
        augment=args.augment,
        precision=args.precision,
    )
    own = replace(context(work, seed), checkpoint=clock.folder / "state.npz", key="recovery", emit=clock.tell)
    return how.run(model, own).model


def run(work: Given, way: str, removed: float, seed: int, args: argparse.Namespace) -> Run:
    """Cut, judge, recover, judge."""
    how = settings(work, args)
    name = "_".join(map(str, (work.name, way.replace(" ", "_"), removed, seed, *how)))
    clock = Clock(args.files / "unfinished" / name)
    shape = cut(work, way, removed, seed, clock.folder)
    old, new = cost(work.model.graph), cost(shape.graph)
    if way == TFMOT:
        start, end = work.model, sparse(work, old.parameters - new.parameters, args, seed)
    else:
        start, end = shape, recovered(work, shape, args, seed, clock) if args.epochs else shape
    minutes = clock.minutes
    found = right(end, work.judged)
    path = args.files / f"{name}.tflite"
    TFLite().export(end, path, ExportContext())
    shutil.rmtree(clock.folder, ignore_errors=True)
    return Run(
        work.name,
        way,
        removed,
        seed,
        *how,
        1.0 if way == TFMOT else new.macs / old.macs,
        new.parameters / old.parameters,
        100 * float(right(work.model, work.judged).mean()),
        100 * float(right(start, work.judged).mean()),
        100 * float(found.mean()),
        minutes,
        np.packbits(found).tobytes().hex(),
        path.name,
        100 * float(right(end, work.selection).mean()),
    )


def settings(work: Given, args: argparse.Namespace) -> tuple[Any, ...]:
    """How a model is recovered, in the order of a record."""
    return (args.epochs, args.rate, args.batch, args.alpha, len(work.train.labels), args.augment, args.precision)


def spent() -> float:
    """Seconds of processors so far, those of processes that have ended too: TFMOT trains in one of its own."""
    return sum(os.times()[:4])


def sparse(work: Given, zeros: int, args: argparse.Namespace, seed: int) -> Model:
    """TFMOT's own sparsity with so many weights at zero."""
    from toolkit.engine.eligible import kernel_of
    from toolkit.engine.sparsity import Pattern, eligible
    from toolkit.passes.sparsify import Sparsify

    names, _ = eligible(work.model.graph, Pattern())
    share = zeros / sum(int(np.prod(kernel_of(work.model.graph.get_layer(name)).shape)) for name in names)
    how = Sparsify(
        backend="tfmot",
        sparsity=share,
        epochs=args.epochs,
        learning_rate=args.rate,
        batch_size=args.batch,
        alpha=args.alpha,
    )
    return how.run(work.model, context(work, seed)).model


# ---------------------------------------------------------------- the table


def records(path: Path) -> list[Run]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [Run(**json.loads(line)) for line in lines]


def table(found: list[Run], args: argparse.Namespace) -> list[str]:
    lines = []
    for name in dict.fromkeys(row.model for row in found):
        rows = [row for row in found if row.model == name]
        work = given(name, args.data, 2)
        lines += [f"### {name}", "", *_rows(rows, work, _times(rows, work, args)), ""]
    return lines


def _times(rows: list[Run], work: Given, args: argparse.Namespace) -> dict[str, float]:
    """Latency of each file over that of the original's, all taking turns, one thread of LiteRT."""
    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder) / "original.tflite"
        TFLite().export(work.model, original, ExportContext())
        paths = {row.file: args.files / row.file for row in rows if (args.files / row.file).exists()}
        first, *others = best_ms([original, *paths.values()], work.judged.images[:1])
    return {"": first, **{name: ms / first for name, ms in zip(paths, others, strict=True)}}


def _rows(rows: list[Run], work: Given, times: dict[str, float]) -> list[str]:
    lines = [
        f"{len(work.judged.labels):,} images judged; the original {rows[0].original:.2f}%, {times['']:.3f} ms.",
        "",
        "| MACs removed | way | recovery | seeds | MACs left | parameters left | before recovery % "
        "| after % | of the images that choose | points lost (95%) | latency to the original's | minutes of 2 cores |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    original = right(work.model, work.judged)
    keys = dict.fromkeys(_place(row) for row in rows)
    for key in sorted(keys):
        same = [row for row in rows if _place(row) == key]
        bits = [np.unpackbits(np.frombuffer(bytes.fromhex(row.right), np.uint8))[: len(original)] for row in same]
        lost = bootstrap_mean(original.astype(float) - np.mean(bits, axis=0), side.CONFIDENCE, seed=0)
        points = 100 * (original.mean() - np.mean(bits))
        chose = [row.selection for row in same]
        cells = (
            f"{key[0]:.0%}",
            key[1],
            f"{key[2]} x {key[6]:,}, rate {key[3]:g}, batch {key[4]}, alpha {key[5]:g}, {key[7]}, {key[8]}",
            str(len(same)),
            _mean(100 * row.macs for row in same),
            _mean(100 * row.parameters for row in same),
            _mean(row.before for row in same),
            _mean(row.after for row in same),
            "" if None in chose else _mean(chose),
            f"{points:.2f} ({100 * lost.low:.2f} to {100 * lost.high:.2f})",
            _mean((times[row.file] for row in same if row.file in times), digits=2),
            _mean((row.minutes for row in same), digits=0),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _place(row: Run) -> tuple[Any, ...]:
    """What tells lines of the table apart."""
    return (row.removed, row.way, row.epochs, row.rate, row.batch, row.alpha, row.train, row.augment, row.precision)


def _mean(values: Any, digits: int = 1) -> str:
    """Mean, and the range where it is one."""
    found = list(values)
    if not found:
        return ""
    low, high = (f"{end:.{digits}f}" for end in (min(found), max(found)))
    return f"{np.mean(found):.{digits}f}" + (f" ({low} to {high})" if low != high else "")


# ---------------------------------------------------------------- command line


def arguments() -> argparse.Namespace:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", type=Path)
    ask.add_argument("--records", type=Path)
    ask.add_argument("--files", type=Path, help="folder of the .tflite files; default: beside the records")
    ask.add_argument("--models", nargs="+", default=[CIFAR[0]], choices=(*CIFAR, *TRASHNET))
    ask.add_argument("--ways", nargs="+", default=[OURS, "uniform l1", SCRATCH], choices=(*WAYS, SCRATCH, TFMOT))
    ask.add_argument("--removed", nargs="+", type=float, default=[0.5])
    ask.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    ask.add_argument("--epochs", type=int, default=10)
    ask.add_argument("--rate", type=float, default=2e-3)
    ask.add_argument("--batch", type=int, default=128)
    ask.add_argument("--alpha", type=float, default=1.0, help="the teacher's part of the loss")
    ask.add_argument(
        "--precision", default="float32", choices=("float32", "bfloat16"), help="that training computes in"
    )
    ask.add_argument("--augment", default="flip_shift", choices=("none", "flip", "shift", "flip_shift"))
    ask.add_argument("--train", type=int, default=50_000)
    ask.add_argument("--table", action="store_true")
    ask.add_argument("--out", type=Path)
    args = ask.parse_args()
    if args.records:
        args.files = args.files or args.records.with_suffix("")
        args.files.mkdir(parents=True, exist_ok=True)
    return args


def _key(row: Run) -> tuple[Any, ...]:
    """What tells runs apart."""
    return (row.model, row.seed, *_place(row))


def main() -> None:
    args = arguments()
    if args.data is None or args.records is None:
        print("skipped: name the folder of trained models and images (--data) and the file of the runs (--records)")
        return
    if args.table:
        text = "\n".join(table(records(args.records), args))
        print(text)
        if args.out:
            args.out.write_text(text + "\n")
        return
    for name in args.models:
        work = given(name, args.data, args.train)
        for seed in args.seeds:
            for removed in args.removed:
                for way in args.ways:
                    how = settings(work, args)
                    key = (name, seed, removed, way, *how)
                    done = {_key(row) for row in records(args.records)}
                    if key in done:
                        continue
                    found = run(work, way, removed, seed, args)
                    with args.records.open("a") as file:
                        file.write(json.dumps(asdict(found)) + "\n")
                    print(f"{key}: {found.before:.2f} -> {found.after:.2f} of {found.original:.2f}", file=sys.stderr)


if __name__ == "__main__":
    main()
