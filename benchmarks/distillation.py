"""What a teacher is worth to a cut network beside its labels alone, and what asking it costs in a training step.

The same cut model, the same images, views, steps and loop: one way has the labels (fine-tuning), the others a teacher,
the original. Shares are of the accuracy that the cut has cost. Each way may try several --rates; the one best on the
selection images, over all seeds, is the way's, and is judged. Splits are those of pruning.py: nothing is trained or
chosen on the images judged. Every run adds a line to --records; one that is there is not done again. With --labelled N
only the first N training images have labels: `labels` sees those as often as makes up for the rest, and the others
look at no label.

Overhead: a step of distillation against the teacher's inference plus the same student's step on labels, in turns in
one process. Views differ from step to step, so that the teacher is asked in each. Target: at most 1.1.

    python benchmarks/distillation.py --data DIR --records FILE.jsonl [--models NAME ...] [--ways labels teacher ...]
                                      [--also 'NAME: alpha = 0.9; temperature = 2'] [--removed 0.7] [--cut NAME]
                                      [--seeds 0 1 2] [--epochs N] [--rates R ...] [--train N]
                                      [--labelled N]
    python benchmarks/distillation.py --data DIR --records FILE.jsonl --table [--out FILE.md]
    python benchmarks/distillation.py --overhead [--data DIR] [--models NAME ...] [--batch 64] [--rounds 9]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import peers_int8 as side
import pruning
from qat_step import small_resnet

from toolkit.core import Model, PassContext
from toolkit.passes.distill import Distill
from toolkit.passes.prune import Prune
from toolkit.sources.keras import Keras

LABELS = "labels"
# what a way asks of `distill`; each has the rest at its defaults, or as the command line says
WAYS: dict[str, dict[str, Any]] = {
    LABELS: {"alpha": 0.0},
    "teacher": {"alpha": 1.0},
    "teacher and labels": {"alpha": 0.8},
    "mse": {"alpha": 1.0, "loss": "mse"},
    "hints": {"alpha": 0.8, "hints": {}},
    "attention": {"alpha": 0.8, "attention": {}},
    "relational": {"alpha": 0.8, "relational": {}},
}
USUAL = (LABELS, "teacher", "teacher and labels")
VIEWS = "flip_shift"
MORE = 1.3  # of the lost accuracy, to what labels recover
OVERHEAD = 1.1
RESAMPLES = 2_000
TAIL = (1 - side.CONFIDENCE) / 2


@dataclass(frozen=True)
class Run:
    """One line of the records. how: what the way asks of `distill`. cut: how the channels were chosen.

    original, before, after, selection: percent; the last of the selection images, after. minutes: of two processors.
    whole, left, right: hexadecimal bits, which of the judged images the original, the cut model and the trained one
    get right. labelled: how many of the training images have labels; 0: all.
    """

    model: str
    cut: str
    removed: float
    seed: int
    way: str
    how: str
    epochs: int
    rate: float
    batch: int
    train: int
    precision: str
    original: float
    before: float
    after: float
    selection: float
    minutes: float
    whole: str
    left: str
    right: str
    labelled: int = 0

    @property
    def place(self) -> tuple[Any, ...]:
        """What a table is of."""
        return (self.model, self.cut, self.removed, self.epochs, self.batch, self.train, self.precision, self.labelled)

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells runs apart."""
        return (*self.place, self.seed, self.way, self.how, self.rate)


@dataclass(frozen=True)
class Asked:
    """A training that is wanted."""

    way: str
    rate: float
    removed: float
    seed: int


# ---------------------------------------------------------------- runs


def runs(args: argparse.Namespace) -> None:
    """All that are not in the records yet; a cut is made once for all ways."""
    for name in args.models:
        work = pruning.given(name, args.data, args.train)
        whole = pruning.right(work.model, work.judged)
        for seed, removed in ((seed, removed) for seed in args.seeds for removed in args.removed):
            wanted = [Asked(way, rate, removed, seed) for way in args.ways for rate in args.rates]
            wanted = [asked for asked in wanted if not _done(work, asked, args)]
            if not wanted:
                continue
            model = pruning.pruned(work, args.cut, removed, seed)
            before = pruning.right(model, work.judged)
            for asked in wanted:
                found = run(work, model, (whole, before), asked, args)
                with args.records.open("a") as file:
                    file.write(json.dumps(asdict(found)) + "\n")
                print(f"{asked}: {found.before:.2f} -> {found.after:.2f} of {found.original:.2f}", file=sys.stderr)


def _done(work: pruning.Given, asked: Asked, args: argparse.Namespace) -> bool:
    train = len(work.train.labels)
    place = (work.name, args.cut, asked.removed, args.epochs, args.batch, train, args.precision, args.labelled)
    return (*place, asked.seed, asked.way, _how(asked.way, args), asked.rate) in {
        row.key for row in records(args.records)
    }


def run(work: pruning.Given, model: Model, before: tuple[Any, Any], asked: Asked, args: argparse.Namespace) -> Run:
    """Train one way, judge it. before: which judged images the original, and the cut model, get right."""
    seen, epochs = work, args.epochs
    if args.labelled and asked.way == LABELS:
        epochs = args.epochs * len(work.train.labels) // args.labelled
        few = pruning.Split(work.train.images[: args.labelled], work.train.labels[: args.labelled])
        seen = replace(work, train=few)
    given = {
        "epochs": epochs,
        "learning_rate": asked.rate,
        "batch_size": args.batch,
        "augment": VIEWS,
        "precision": args.precision,
    }
    context = replace(pruning.context(seen, asked.seed), load=Keras().load)  # of a way that names another teacher
    started = pruning.spent()
    after = Distill(**{**given, **args.options[asked.way]}).run(model, context).model
    minutes = (pruning.spent() - started) / 120
    found = pruning.right(after, work.judged)
    return Run(
        work.name,
        args.cut,
        asked.removed,
        asked.seed,
        asked.way,
        _how(asked.way, args),
        args.epochs,
        asked.rate,
        args.batch,
        len(work.train.labels),
        args.precision,
        *(100 * float(bits.mean()) for bits in (*before, found)),
        100 * float(pruning.right(after, work.selection).mean()),
        minutes,
        *(_packed(bits) for bits in (*before, found)),
        labelled=args.labelled,
    )


def _how(way: str, args: argparse.Namespace) -> str:
    return json.dumps(args.options[way], sort_keys=True)


def _packed(bits: Any) -> str:
    return np.packbits(bits).tobytes().hex()


def _bits(text: str, count: int) -> Any:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:count].astype(float)


# ---------------------------------------------------------------- the table


def records(path: Path) -> list[Run]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [Run(**json.loads(line)) for line in lines]


def table(found: list[Run], args: argparse.Namespace) -> list[str]:
    lines = []
    for place in dict.fromkeys(row.place for row in found):
        same = [row for row in found if row.place == place]
        judged = len(pruning.given(same[0].model, args.data, 2).judged.labels)
        lines += [_title(same[0], judged), "", *_rows(same, judged), ""]
    return lines


def _title(row: Run, judged: int) -> str:
    cut = f"{row.removed:.0%} of the MACs removed ({row.cut})"
    some = f" ({row.labelled:,} with labels, seen as much more often)" if row.labelled else ""
    how = f"{row.epochs} x {row.train:,} images{some}, batch {row.batch}, {row.precision}"
    judging = f"{judged:,} judged, the original {row.original:.2f}%; intervals over images"
    return f"**{row.model}**, {cut}; {how}; {judging}."


def _rows(same: list[Run], judged: int) -> list[str]:
    lines = [
        "| way | rate | seeds | before % | after % | of the lost accuracy recovered "
        "| to labels (95%) | of what labels leave lost (95%) | minutes of 2 cores |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    chosen = {(row.way, row.how): _best([x for x in same if (x.way, x.how) == (row.way, row.how)]) for row in same}
    plain = next((rows for (way, _), rows in chosen.items() if way == LABELS), [])
    for (way, _), rows in chosen.items():
        shares = [(row.after - row.before) / (row.original - row.before) for row in rows]
        beside = [row for row in plain if row.seed in {one.seed for one in rows}]
        more = ("", "") if way == LABELS or len(beside) != len(rows) else _beside(rows, beside, judged)
        cells = (
            way,
            f"{rows[0].rate:g}",
            str(len(rows)),
            _mean(row.before for row in rows),
            _mean(row.after for row in rows),
            _mean(100 * share for share in shares) + "%",
            *more,
            _mean(row.minutes for row in rows),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _best(rows: list[Run]) -> list[Run]:
    """Those of the rate that is best on the selection images, on average; of rates with all seeds."""
    seeds = max(len([row for row in rows if row.rate == rate]) for rate in {row.rate for row in rows})
    by_rate = {rate: [row for row in rows if row.rate == rate] for rate in dict.fromkeys(row.rate for row in rows)}
    full = [same for same in by_rate.values() if len(same) == seeds]
    return max(full, key=lambda same: statistics.mean(row.selection for row in same))


def _beside(rows: list[Run], plain: list[Run], judged: int) -> tuple[str, str]:
    """How much more than labels: as a ratio of what is recovered, and as a share of what labels leave lost.

    Bootstrap over the images judged, each with its mean over the seeds.
    """
    seeds = sorted(row.seed for row in rows)
    taught, labels = (
        np.mean([_bits(row.right, judged) for row in some if row.seed in seeds], axis=0) for some in (rows, plain)
    )
    start = np.mean([_bits(row.left, judged) for row in rows], axis=0)
    bits = np.stack([_bits(rows[0].whole, judged), start, labels, taught])
    generator = np.random.default_rng(0)
    draws = np.stack([bits[:, generator.integers(0, judged, judged)].mean(axis=1) for _ in range(RESAMPLES)], axis=1)
    _, start, labels, _ = draws
    if np.quantile(labels - start, TAIL) <= 0:
        return "labels recover nothing to compare with", _share(draws, bits.mean(axis=1))
    ratios, ratio = _ratio(draws), _ratio(bits.mean(axis=1))
    verdict = "PASS" if ratio >= MORE else "below"
    return f"{ratio:.2f} x ({_ends(ratios, 2)}), {verdict} {MORE:g}", _share(draws, bits.mean(axis=1))


def _ratio(means: Any) -> Any:
    """means: of the original, the cut model, labels, and the way."""
    _, start, labels, taught = means
    return (taught - start) / (labels - start)


def _share(draws: Any, means: Any) -> str:
    whole, _, labels, taught = draws
    if np.quantile(whole - labels, TAIL) <= 0:
        return "labels leave nothing lost"
    shares = 100 * (taught - labels) / (whole - labels)
    return f"{100 * (means[3] - means[2]) / (means[0] - means[2]):.0f}% ({_ends(shares, 0)})"


def _ends(values: Any, digits: int) -> str:
    low, high = np.quantile(values, (TAIL, 1 - TAIL))
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _mean(values: Any) -> str:
    """Mean, and the range where it is one."""
    found = list(values)
    low, high = (f"{end:.1f}" for end in (min(found), max(found)))
    return f"{statistics.mean(found):.1f}" + (f" ({low} to {high})" if low != high else "")


# ---------------------------------------------------------------- overhead


def overhead(name: str, args: argparse.Namespace) -> list[str]:
    """A step's milliseconds and the ratios; the student is the original with half of its MACs."""
    model = original(name, args.data)
    student = Prune(macs=0.5, importance="l1").run(model, PassContext(original=model)).model
    turns = _turns(model, student, args)
    seconds: dict[str, list[float]] = {part: [] for part in turns}
    for number in range(args.rounds + 1):
        for part, turn in turns.items():
            started = perf_counter()
            turn()
            if number:  # the first turn traces
                seconds[part].append((perf_counter() - started) / args.steps)
    each = ", ".join(f"{part} {1e3 * statistics.median(values):.1f} ms" for part, values in seconds.items())
    lines = [f"{name}, {args.batch} images a step, {args.rounds} turns of {args.steps} steps: {each}"]
    for teacher in ("teacher", "teacher, optimized"):
        sums = [one + two for one, two in zip(seconds[teacher], seconds["student"], strict=True)]
        ratios = [both / apart for both, apart in zip(seconds["distillation"], sums, strict=True)]
        ratio, least = statistics.median(ratios), min(seconds["distillation"])
        least /= min(seconds[teacher]) + min(seconds["student"])
        verdict = f"{'PASS' if ratio <= OVERHEAD else 'FAIL'} (target: at most {OVERHEAD:g})"
        ends = f"{min(ratios):.3f} to {max(ratios):.3f}; of the least times {least:.3f}"
        lines += [f"  to {teacher} + student: {ratio:.3f} ({ends}) {verdict}"]
    return lines


def original(name: str, data: Path | None) -> Model:
    if data is not None:
        return Keras().load(data / "models" / f"{name}.keras")
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        small_resnet().save(path)
        return Keras().load(path)


def _turns(model: Model, student: Model, args: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """One turn of each kind. "teacher" is compiled as the training step is, "optimized" as TensorFlow does by itself:
    its graph optimizer fuses layers in inference, but does not give the same bits each time in training."""
    import tensorflow as tf

    from toolkit.engine.loss import Target
    from toolkit.engine.step import Batches, Trainer, repeatable
    from toolkit.engine.teaching import Teaching
    from toolkit.passes.distill import as_teacher

    generator, count = np.random.default_rng(0), args.batch * args.steps
    sides = model.signature.inputs[0].shape[1:]
    images = generator.uniform(0, 255, (count, *sides)).astype(np.float32)
    labels = generator.integers(0, model.signature.outputs[0].shape[-1], count)
    teacher, batches = as_teacher(model), Batches(images, labels, args.batch, 0)

    def trainer(alpha: float) -> Callable[[], Any]:
        how = Teaching(1, args.batch, 1e-4, head=model.head, target=Target(alpha=alpha), augment=VIEWS)
        made = Trainer(student.graph, teacher, batches, how)

        def turn() -> None:
            with repeatable():
                made.epoch(1, lambda *_: None)

        return turn

    def asked() -> Callable[[], None]:
        look = tf.function(lambda rows: tf.reduce_sum(teacher.look(rows)), autograph=False)

        def turn() -> None:
            total = tf.zeros(())
            for rows in batches.rows(1):
                total += look(tf.constant(images[rows]))
            float(total)

        return turn

    plain = asked()

    def alike() -> None:
        with repeatable():
            plain()

    return {
        "teacher": alike,
        "teacher, optimized": asked(),
        "student": trainer(0.0),
        "distillation": trainer(0.8),
    }


# ---------------------------------------------------------------- command line


def arguments() -> argparse.Namespace:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = (*pruning.CIFAR, *pruning.TRASHNET)
    ask.add_argument("--data", type=Path)
    ask.add_argument("--records", type=Path)
    ask.add_argument("--models", nargs="+", default=[models[0]], choices=models)
    ask.add_argument("--ways", nargs="+", help=f"of {', '.join(WAYS)}; default: {', '.join(USUAL)}, --also")
    ask.add_argument("--also", action="append", default=[], metavar="NAME: TOML", help="a further way; ; parts keys")
    ask.add_argument("--cut", default=pruning.OURS, choices=list(pruning.WAYS), help="how channels are chosen")
    ask.add_argument("--removed", nargs="+", type=float, default=[0.7])
    ask.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    ask.add_argument("--epochs", type=int, default=5)
    ask.add_argument("--rates", nargs="+", type=float, default=[1e-3], help="tried for each way")
    ask.add_argument("--batch", type=int, default=64)
    ask.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    ask.add_argument("--train", type=int, default=50_000)
    ask.add_argument("--labelled", type=int, default=0, help="how many of those have labels; 0: all")
    ask.add_argument("--table", action="store_true")
    ask.add_argument("--overhead", action="store_true")
    ask.add_argument("--steps", type=int, default=10, help="in one turn of --overhead")
    ask.add_argument("--rounds", type=int, default=9)
    ask.add_argument("--out", type=Path)
    args = ask.parse_args()
    args.options = dict(WAYS)
    for text in args.also:
        name, _, keys = text.partition(":")
        args.options[name.strip()] = tomllib.loads(keys.replace(";", "\n"))
    args.ways = args.ways or [name for name in args.options if name in USUAL or name not in WAYS]
    if unknown := set(args.ways) - set(args.options):
        ask.error(f"--ways: no way is called {', '.join(sorted(unknown))}; there are {', '.join(args.options)}")
    if not 0 <= args.labelled < args.train:
        ask.error(f"--labelled: {args.labelled:,} is not from 0 to less than --train ({args.train:,})")
    mixed = [way for way in args.ways if way != LABELS and args.options[way].get("alpha") != 1.0]
    if args.labelled and mixed:
        ask.error(f"--labelled: {', '.join(mixed)} would see the labels of all images; leave it out, or set alpha = 1")
    return args


def main() -> None:
    args = arguments()
    if args.overhead or args.data is None:
        lines = [line for name in args.models for line in overhead(name if args.data else "ResNet20", args)]
    elif args.records is None:
        raise SystemExit("name the file that runs are kept in (--records), or ask for --overhead")
    elif args.table:
        lines = table(records(args.records), args)
    else:
        runs(args)
        return
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
