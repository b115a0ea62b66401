"""The strongest recipe's files beside the int8 file that TensorFlow's converter makes of the same model.

The passes are a shipped recipe's (or a file's), with any --set; `passes.0.macs` is each of --kept in turn, so that the
table is a frontier of accuracy against latency and size; a recipe that does not begin with `prune` is run as it is.
Each variant that leaves as .tflite is one line; variants share the trunk. Every file is judged in LiteRT on the same
images, and all files of a model take turns for latency: the least time of one image, one thread. Splits are those of
pruning.py: nothing is trained or chosen on the images judged; TensorFlow's converter, its defaults for integer files
with float32 ends, gets the same calibration images. "weights": bytes of the constants that convolutions and dense
layers read. Where the processor has AMX, as few edge devices have, latency is measured without it too (peers/amx.py).
What a file misses is said of the numbers shown, not of the ends of their intervals, which are over images.

Every file adds a line to --records; what is there is not made again (of a recipe that has changed since neither: name
another file then), and a training that was cut short goes on from its last epoch. Minutes are processor time over two
cores, cut and export included, the shared trunk counted in each.

    python benchmarks/strongest.py --data DIR --records FILE.jsonl [--models NAME ...] [--recipe prune-distill-int8]
                                   [--variants int8 ...] [--kept 0.7 0.6 0.5 0.4 0.3 0.25] [--seeds 0]
                                   [--set passes.1.epochs=30 ...] [--train N]
    python benchmarks/strongest.py --data DIR --records FILE.jsonl --table [--out FILE.md]
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import shutil
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import peers_int8 as side
import pruning
from peers import amx, here
from peers.running import answers, best_ms

from toolkit.core import ExportContext, Model, PassContext
from toolkit.engine.cost import cost
from toolkit.engine.numeric import decisions
from toolkit.engine.statistics import bootstrap_mean
from toolkit.exporters import tflite_file, tflite_scan
from toolkit.exporters.tflite import TFLite
from toolkit.recipe import Recipe, Step, Variant
from toolkit.recipe_reader import load_recipe
from toolkit.sources.keras import Keras

FLOAT, TENSORFLOW = "float32", "TensorFlow int8"
NONE = (0.0, 0.0, 0.0, 0, 0, "", "")  # of a file that is not made yet
POINTS, TIMES, MINUTES = 0.5, 2.0, 60  # at most lost; at least faster and smaller; at most taken


@dataclass(frozen=True)
class Row:
    """One file. way: recipe and variant, or what it is held against. kept: share of the MACs that was asked for.

    settings: --set. macs: share that is left. trained: percent that the network gets right before its last passes,
    in float. minutes: of two processors. size, weights: bytes. right: hexadecimal bits of the judged images.
    """

    model: str
    way: str
    kept: float
    seed: int
    settings: str
    train: int
    macs: float
    trained: float
    minutes: float
    size: int
    weights: int
    right: str
    file: str

    @property
    def place(self) -> tuple[Any, ...]:
        """What a line of the table is of."""
        return (self.model, self.way, self.kept, self.settings, self.train)

    @property
    def is_ours(self) -> bool:
        return self.way not in {FLOAT, TENSORFLOW}


# ---------------------------------------------------------------- making


def runs(args: argparse.Namespace) -> None:
    for name in args.models:
        work = pruning.given(name, args.data, args.train)
        for seed in args.seeds:
            beside(work, seed, args)
            for kept in args.kept if _cuts(args) else [1.0]:
                made(work, seed, kept, args)


def beside(work: pruning.Given, seed: int, args: argparse.Namespace) -> None:
    """The float file, and TensorFlow's int8 one, calibrated on the seed's images."""
    images = calibration(work, seed, args.calibration)
    for way in (FLOAT, TENSORFLOW):
        row = replace(Row(work.name, way, 1.0, seed, "", args.calibration, *NONE), macs=1.0)
        if _done(row, args):
            continue
        path = args.files / f"{work.name}_{way.replace(' ', '_')}_{seed}_{args.calibration}.tflite"
        started = pruning.spent()
        if way == FLOAT:
            TFLite().export(work.model, path, ExportContext())
        else:
            here.tensorflow(len(images))(here.Given(work.model, path, path, images), path)
        noted(replace(row, minutes=_minutes(started)), path, work, args)


def calibration(work: pruning.Given, seed: int, count: int) -> Any:
    rows = np.sort(np.random.default_rng(seed).permutation(len(work.train.labels))[:count])
    return work.train.images[rows]


def made(work: pruning.Given, seed: int, kept: float, args: argparse.Namespace) -> None:
    """Trunk, then each variant that is not there."""
    changes = [f"passes.0.macs={kept:g}"] * _cuts(args) + args.set
    recipe = load_recipe(args.recipe, overrides=changes)
    settings, count = "; ".join(args.set), len(work.train.labels)
    rows = [
        (variant, Row(work.name, f"{recipe.name} {variant.name}", kept, seed, settings, count, *NONE))
        for variant in _variants(recipe, args)
    ]
    wanted = [(variant, row) for variant, row in rows if not _done(row, args)]
    if not wanted:
        return
    folder = args.files / "unfinished" / _slug(work.name, recipe.name, kept, seed, settings, count)
    context = replace(
        pruning.context(work, seed),
        calibration=pruning.Images(
            work.model.signature.inputs[0].name,
            pruning.Split(calibration(work, seed, args.calibration), np.zeros(args.calibration, np.int64)),
        ),
        load=Keras().load,  # another teacher, with --set passes.1.teacher=PATH
    )
    model, trunk = passed(work.model, recipe.passes, context, folder / "trunk")
    trained = 100 * float(pruning.right(model, work.judged).mean())
    share = cost(model.graph).macs / cost(work.model.graph).macs
    for variant, row in wanted:
        found, own = passed(model, variant.passes, context, folder / variant.name)
        started = pruning.spent()
        path = args.files / f"{_slug(*row.place, seed)}.tflite"
        exporter = next(step.component for step in variant.exports if step.use == "tflite")
        exporter.export(found, path, ExportContext(calibration=context.calibration))
        minutes = trunk + own + _minutes(started)
        noted(replace(row, macs=share, trained=trained, minutes=minutes), path, work, args)
    shutil.rmtree(folder, ignore_errors=True)


def _cuts(args: argparse.Namespace) -> bool:
    """Whether the recipe begins with a cut, which --kept sizes; another is run as it is."""
    steps = load_recipe(args.recipe).passes
    return bool(steps) and steps[0].use == "prune"


def _variants(recipe: Recipe, args: argparse.Namespace) -> Iterator[Variant]:
    for variant in recipe.variants:
        has_file = any(step.use == "tflite" for step in variant.exports)
        if has_file and (not args.variants or variant.name in args.variants):
            yield variant


def passed(model: Model, steps: tuple[Step, ...], context: PassContext, folder: Path) -> tuple[Model, float]:
    """The model after these passes, and the minutes they took, those of a run that was cut short included."""
    total = 0.0
    for number, step in enumerate(steps):
        clock = pruning.Clock(folder / f"{number}-{step.use}")
        key = hashlib.sha256(repr(step.component).encode()).hexdigest()
        own = replace(context, checkpoint=clock.folder / "state.npz", key=key, emit=clock.tell)
        model = step.component.run(model, own).model
        total += clock.minutes
    return model, total


def _minutes(started: float) -> float:
    return (pruning.spent() - started) / 120


def noted(row: Row, path: Path, work: pruning.Given, args: argparse.Namespace) -> None:
    """The row with what its file answers and weighs, in the records."""
    right = decisions(answers(path, work.judged.images), work.model.head) == work.judged.labels
    bits = np.packbits(right).tobytes().hex()
    row = replace(row, size=path.stat().st_size, weights=weights(path), right=bits, file=path.name)
    with args.records.open("a") as file:
        file.write(json.dumps(asdict(row)) + "\n")
    print(
        f"{row.model}, {row.way}, kept {row.kept:g}, seed {row.seed}: {100 * right.mean():.2f}%, "
        f"{row.size / 1024:.0f} KiB, {row.minutes:.1f} minutes",
        file=sys.stderr,
    )


def weights(path: Path) -> int:
    """Bytes of the constants that convolutions and dense layers read, each once."""
    found = {tensor.name: tensor for _, tensor, _ in tflite_scan.weights(tflite_file.read(path))}
    return sum(int(np.prod(t.shape)) * _bits(t.dtype) // 8 for t in found.values())


def _bits(dtype: str) -> int:
    return 4 if dtype == "int4" else 8 * np.dtype(dtype).itemsize


def _slug(*parts: Any) -> str:
    """A name for a file, the long parts by their hash."""
    short = "_".join(str(part).replace(" ", "_") for part in parts if len(str(part)) < 40 and "=" not in str(part))
    return f"{short}_{hashlib.sha256(repr(parts).encode()).hexdigest()[:8]}"


def _done(row: Row, args: argparse.Namespace) -> bool:
    return (row.place, row.seed) in {(one.place, one.seed) for one in records(args.records)}


# ---------------------------------------------------------------- the table


def records(path: Path) -> list[Row]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [Row(**json.loads(line)) for line in lines]


@dataclass(frozen=True)
class Files:
    """By name: milliseconds of one image, the same without AMX (none where the processor has none), gzip's bytes."""

    milliseconds: dict[str, float]
    plain: dict[str, float]
    gzip: dict[str, int]


@dataclass(frozen=True)
class Line:
    """One line of the table: the mean over its seeds. lost: points to the float file, with its 95% interval.

    faster, plain, smaller, lighter, packed: TensorFlow's milliseconds, those without AMX (nan where there is none),
    bytes, bytes of weights and of gzip over its own.
    """

    rows: tuple[Row, ...]
    right: Any
    lost: float
    low: float
    high: float
    to_int8: float
    faster: float
    plain: float
    smaller: float
    lighter: float
    packed: float

    @property
    def minutes(self) -> float:
        return max(row.minutes for row in self.rows)

    @property
    def missed(self) -> list[str]:
        """Which of the limits it does not keep."""
        tests = {
            f"{POINTS:g} points": self.lost <= POINTS,
            f"{TIMES:g} x faster": self.faster >= TIMES,
            f"{TIMES:g} x faster without AMX": not self.plain < TIMES,
            f"{TIMES:g} x smaller": min(self.smaller, self.lighter) >= TIMES,
            f"{MINUTES} minutes": self.minutes <= MINUTES,
        }
        return [name for name, met in tests.items() if not met]


def table(found: list[Row], args: argparse.Namespace) -> list[str]:
    lines = []
    for name in dict.fromkeys(row.model for row in found):
        rows = [row for row in found if row.model == name]
        work = pruning.given(name, args.data, 2)
        lines += [*_section(name, rows, work, args), ""]
    return lines


def _section(name: str, rows: list[Row], work: pruning.Given, args: argparse.Namespace) -> list[str]:
    judged = len(work.judged.labels)
    files = _files(rows, work, args)
    whole = np.mean([_right(row, judged) for row in rows if row.way == FLOAT], axis=0)
    theirs = [row for row in rows if row.way == TENSORFLOW]
    order = sorted({row.place for row in rows if row.is_ours}, key=lambda place: (place[1], place[3], -place[2]))
    places = [(*rows[0].place[:1], TENSORFLOW), *order]
    groups = [tuple(row for row in rows if row.place[: len(place)] == place) for place in places]
    lines = [_line(group, theirs, whole, files, judged) for group in groups]
    best = [line for line in lines if not any(_dominates(other, line) for other in lines)]
    text = [
        f"### {name}",
        "",
        f"{judged:,} images judged; float32 {100 * whole.mean():.2f}%. Latency: the least of one image, one thread of "
        "LiteRT, all files in turns. Minutes: processor time over two cores.",
        "",
        "| file | settings | seeds | MACs left | float before int8 % | % | points lost to float (95%) "
        "| to TensorFlow's int8 | x faster | x faster without AMX "
        "| x smaller file | KiB | x smaller weights | x smaller gzip | minutes "
        "| on the frontier | misses |",
        "|---" * 17 + "|",
    ]
    for line in lines:
        first = line.rows[0]
        asked = f"{first.train:,} images" + (f"; {first.settings}" if first.settings else "")
        cells = (
            f"{first.way}, {first.kept:.0%}" if first.is_ours else first.way,
            asked if first.is_ours else "",
            str(len(line.rows)),
            _mean(100 * row.macs for row in line.rows) + "%",
            _mean(row.trained for row in line.rows) if first.is_ours else "",
            f"{100 * line.right.mean():.2f}",
            f"{line.lost:.2f} ({line.low:.2f} to {line.high:.2f})",
            f"{line.to_int8:.2f}",
            f"{line.faster:.2f}",
            f"{line.plain:.2f}" if files.plain else "",
            f"{line.smaller:.2f}",
            _mean(row.size / 1024 for row in line.rows),
            f"{line.lighter:.2f}",
            f"{line.packed:.2f}",
            f"{line.minutes:.0f}",
            "yes" if line in best else "",
            (", ".join(line.missed) or "nothing") if first.is_ours else "",
        )
        text.append("| " + " | ".join(cells) + " |")
    return text


def _line(group: tuple[Row, ...], theirs: list[Row], whole: Any, files: Files, judged: int) -> Line:
    right = np.mean([_right(row, judged) for row in group], axis=0)
    lost = bootstrap_mean(whole - right, side.CONFIDENCE, seed=0)
    base = np.mean([_right(row, judged) for row in theirs], axis=0)
    milliseconds, plain, size, weight, packed = (
        statistics.mean(value(row) for row in theirs) / statistics.mean(value(row) for row in group)
        for value in (
            lambda row: files.milliseconds[row.file],
            lambda row: files.plain.get(row.file, math.nan),
            lambda row: row.size,
            lambda row: row.weights,
            lambda row: files.gzip[row.file],
        )
    )
    return Line(
        group,
        right,
        100 * float((whole - right).mean()),
        100 * lost.low,
        100 * lost.high,
        100 * float((base - right).mean()),
        milliseconds,
        plain,
        size,
        weight,
        packed,
    )


def _dominates(other: Line, line: Line) -> bool:
    """Whether another file is as accurate, as fast and as small, and better in one."""
    one, two = ((-x.lost, x.faster, x.smaller) for x in (other, line))
    return all(a >= b for a, b in zip(one, two, strict=True)) and one != two


def _right(row: Row, judged: int) -> Any:
    return np.unpackbits(np.frombuffer(bytes.fromhex(row.right), np.uint8))[:judged].astype(float)


def _files(rows: list[Row], work: pruning.Given, args: argparse.Namespace) -> Files:
    """All files take turns."""
    paths = [args.files / name for name in dict.fromkeys(row.file for row in rows)]
    names, image = [path.name for path in paths], work.judged.images[:1]
    plain = amx.without(best_ms, paths, image) if amx.is_here() else []
    packed = {path.name: len(gzip.compress(path.read_bytes(), mtime=0)) for path in paths}
    return Files(dict(zip(names, best_ms(paths, image), strict=True)), dict(zip(names, plain, strict=False)), packed)


def _mean(values: Any) -> str:
    """Mean, and the range where it is one."""
    found = list(values)
    low, high = (f"{end:.1f}" for end in (min(found), max(found)))
    return f"{statistics.mean(found):.1f}" + (f" ({low} to {high})" if low != high else "")


# ---------------------------------------------------------------- command line


def arguments() -> argparse.Namespace:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = (*pruning.CIFAR, *pruning.TRASHNET)
    ask.add_argument("--data", type=Path)
    ask.add_argument("--records", type=Path)
    ask.add_argument("--files", type=Path, help="folder of the .tflite files; default: beside the records")
    ask.add_argument("--models", nargs="+", default=[models[0]], choices=models)
    ask.add_argument("--recipe", default="prune-distill-int8", help="shipped, or a file")
    ask.add_argument("--variants", nargs="+", help="default: all that leave as .tflite")
    ask.add_argument("--kept", nargs="+", type=float, default=[0.7, 0.6, 0.5, 0.4, 0.3, 0.25], help="shares of MACs")
    ask.add_argument("--seeds", nargs="+", type=int, default=[0])
    ask.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a change to the recipe")
    ask.add_argument("--calibration", type=int, default=side.CALIBRATION)
    ask.add_argument("--train", type=int, default=50_000)
    ask.add_argument("--table", action="store_true")
    ask.add_argument("--out", type=Path)
    args = ask.parse_args()
    if args.records:
        args.files = args.files or args.records.with_suffix("")
        args.files.mkdir(parents=True, exist_ok=True)
    return args


def main() -> None:
    args = arguments()
    if args.data is None or args.records is None:
        print("skipped: name the folder of trained models and images (--data) and the file of the runs (--records)")
        return
    if not args.table:
        runs(args)
        return
    text = "\n".join(table(records(args.records), args))
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
