"""What pruning leaves without any training: by criterion and ranking, with and without reconstruction.

Every way, plain L1 too, gets the same: BatchNormalization is settled on a draw of calibration images (the same function
with the statistics of these images), channels go, what is behind them is refitted where the way says so, and statistics
are renewed on the same images. Where nothing is refitted, closed gates stand for removed channels (importance.py).
Plain L1 is uniform, the same share of each group, and it is three: by the filter's own weights alone (`filter`), by all
weights of the group (`l1`, as `prune` has it), and by these with each weight's part divided by its mean. All ways are
held against the best of the three on the very images that judge.

The shares of the MACs are those of --shares at which plain L1 (the best one) keeps nearest to each of --keeps of the
original's accuracy; the reconstructed way is the one of --ways with the least loss to the original's answers at the
first of them. Both are found on other images than those judged. CIFAR-10: calibration images are drawn from the
training images, once for each seed; the first 2,000 test images choose, the others judge. ImageNet: there are 100
calibration images and no more; they find the shares a quarter after the other, each with the statistics of the rest;
a seed draws 75 of them, the 25 left of the first seed choose the way, and the 200 evaluation images judge. No label is
used but to count: slopes are of labels drawn from what the model predicts.

    python benchmarks/pruning_untrained.py --data DIR [--models NAME ...] [--images N] [--choose N] [--judge N]
                                           [--seeds N] [--beside N] [--keeps K ...] [--shares S ...]
                                           [--ways KIND/RANKING[/reconstructed] ...] [--round-to N] [--out FILE.md]
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import peers_int8 as side
from importance import Gated, Images, own_filters

from toolkit.engine.allocate import allocate
from toolkit.engine.batchnorm import reestimate_batchnorm
from toolkit.engine.graph import walk
from toolkit.engine.groups import find_groups
from toolkit.engine.importance import scores
from toolkit.engine.numeric import decisions
from toolkit.engine.predict import predict_arrays
from toolkit.engine.reconstruct import reconstruct
from toolkit.engine.widths import Rounding
from toolkit.sources.keras import Keras

MODELS = ("resnet20_cifar10_jpeg", "resnet8_cifar10_jpeg", "mnv2_cifar10_96", "mobilenet_v1_025_224_imagenet")
SHARES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3)
KEEPS = (0.45, 0.6, 0.3)  # of the original's accuracy: the middle of 30 to 60%, then its ends
WAYS = (
    "l1/local/reconstructed",
    "taylor/global",
    "taylor/global/reconstructed",
    "fisher/global/reconstructed",
    "activation/global/reconstructed",
    "reconstruction/global/reconstructed",
)
DRAWN = 75  # of ImageNet's 100 calibration images


@dataclass(frozen=True)
class Way:
    """How channels are chosen, and whether what is behind them is refitted."""

    kind: str
    ranking: str
    refit: bool

    def __str__(self) -> str:
        return f"{self.kind}, {self.ranking}{', reconstructed' if self.refit else ''}"


PLAIN = tuple(Way(kind, "local", refit=False) for kind in ("filter", "l1", "l1 by its mean"))


@dataclass
class Work:
    """A model and its images. scored: criterion -> scores, of the calibration images drawn last."""

    name: str
    model: Any  # core.Model
    pool: Any  # calibration images to draw from
    folds: list[tuple[Any, Images]]  # for the shares: rows of the pool, and other images that count
    chosen_on: Images
    judged: Images
    count: int  # images a draw has
    chance: float
    rows: Any = None  # of the pool, drawn last
    net: Any = None  # Gated, settled on them
    groups: Any = None
    scored: dict[str, Any] = field(default_factory=dict)

    def draw(self, seed: int) -> None:
        """Other calibration images."""
        self.use(drawn(len(self.pool), self.count, seed))

    def use(self, rows: Any) -> None:
        if self.rows is None or not np.array_equal(rows, self.rows):
            self.rows = rows
            self.net = Gated(self.model.graph, self.model.head, self.pool.pick(rows), self.judged)
            self.groups = find_groups(self.net.graph)
            self.scored.clear()

    @property
    def samples(self) -> Any:
        return self.net.seen.samples(labels=False)

    def removals(self, way: Way, share: float, rounding: Rounding) -> Any:
        graph, ranking = walk(self.net.graph), way.ranking
        return allocate(graph, self.groups, self.scores(way), share, ranking=ranking, rounding=rounding)

    def scores(self, way: Way) -> Any:
        """As `prune` finds them, and the filter's own weights."""
        key = f"{way.kind} {way.refit}"
        if key not in self.scored:
            self.scored[key] = self._scores(way)
        return self.scored[key]

    def _scores(self, way: Way) -> Any:
        graph, head = self.net.graph, self.model.head
        if way.kind == "filter":
            return own_filters(graph, [group for group in self.groups if not group.frozen])
        kind: Any = way.kind.removesuffix(" by its mean")
        normalization: Any = None if kind == way.kind else "mean"
        renewed: Any = "biases" if way.refit else "statistics"
        return scores(
            graph,
            self.groups,
            kind,
            samples=self.samples,
            head=head,
            normalization=normalization,
            renewed=renewed,
        )


def drawn(pool: int, count: int, seed: int) -> Any:
    return np.sort(np.random.default_rng(seed).permutation(pool)[:count])


@dataclass(frozen=True)
class Pool:
    images: Any
    labels: Any

    def __len__(self) -> int:
        return len(self.labels)

    def pick(self, rows: Any) -> Images:
        return Images(self.images[rows], self.labels[rows])


class Jpegs:
    """Images that are decoded when they are drawn."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def __len__(self) -> int:
        return len(self.found["labels"])

    def pick(self, rows: Any) -> Images:
        return Images(side.decoded(self.found, rows), self.found["labels"][rows].astype(np.int64))


def work(name: str, data: Path, args: argparse.Namespace) -> Work:
    model = Keras().load(data / "models" / f"{name}.keras")
    if name in side.IMAGENET:
        given = side.imagenet(data / "data", 200)
        with (data / "data/imagenet_sample300/labels.csv").open(newline="") as file:
            labels = np.array([int(line["class_index"]) for line in csv.DictReader(file) if line["role"] == "calib"])
        pool, order = Pool(given.calibration, labels), np.random.default_rng(0).permutation(len(labels))
        quarters = [(np.setdiff1d(order, part), part) for part in np.split(order, 4)]  # the last: what seed 0 leaves
        folds = [(seen, pool.pick(out)) for seen, out in quarters]
        return Work(name, model, pool, folds, folds[-1][1], Images(given.images, given.labels), DRAWN, 0.001)
    train, test = (Jpegs(dict(np.load(data / "data" / f"cifar10_jpeg_{part}.npz"))) for part in ("train50k", "test10k"))
    chosen_on = test.pick(np.arange(side.SELECTION)[: args.choose])
    judged = test.pick(np.arange(side.SELECTION, len(test))[: args.judge])
    folds = [(drawn(len(train), args.images, 0), chosen_on)]
    return Work(name, model, train, folds, chosen_on, judged, args.images, 0.1)


# ---------------------------------------------------------------- one pruned model


def pruned(given: Work, way: Way, share: float, args: argparse.Namespace) -> Any:
    """The network cut and refitted."""
    started = time.process_time()
    removals = given.removals(way, share, Rounding(args.round_to))
    made = reconstruct(given.net.graph, removals, given.samples).graph
    made = reestimate_batchnorm(made, (sample.inputs for sample in given.samples()))
    print(f"    {way}: {time.process_time() - started:.0f} s of processors", file=sys.stderr, flush=True)
    return made


def keeps(given: Work, way: Way, share: float, args: argparse.Namespace, images: Images) -> float:
    """Accuracy."""
    if way.refit:
        return accuracy(answers(pruned(given, way, share, args), images.inputs), given, images)
    return float(given.net.accuracy(given.removals(way, share, Rounding(args.round_to)), images))


def answers(graph: Any, images: Any) -> Any:
    return predict_arrays(graph, {graph.inputs[0].name: images})[0]


def accuracy(outputs: Any, given: Work, images: Images) -> float:
    return 100 * float((decisions(outputs, given.model.head) == images.labels).mean())


def loss(outputs: Any, teacher: Any, head: str) -> float:
    """Mean cross-entropy of the answers with the original's as target."""
    target, found = (np.clip(_probabilities(part, head), 1e-7, 1.0) for part in (teacher, outputs))
    return float(-(target * np.log(found)).sum(axis=-1).mean())


def _probabilities(outputs: Any, head: str) -> Any:
    if head != "logits":
        return outputs
    raised = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


# ---------------------------------------------------------------- one model


@dataclass(frozen=True)
class Found:
    """shares: of the MACs, the one where the choice is made first. chosen: way -> (loss to the original, accuracy)
    there; judged: share -> way -> accuracy by seed."""

    given: Work
    shares: list[float]
    original: float
    chosen: dict[Way, tuple[float, float]]
    judged: dict[float, dict[Way, list[float]]]


def measure(given: Work, args: argparse.Namespace) -> Iterator[Found]:
    """What is known so far, after each seed."""
    shares = find_shares(given, args)
    given.draw(0)
    ways = [_way(text) for text in args.ways]
    refits = [way for way in ways if way.refit]
    chosen = choose(given, refits, shares[0], args) if len(refits) > 1 else {}
    best = [min(chosen, key=lambda way: chosen[way][0])] if chosen else refits
    original = accuracy(answers(given.model.graph, given.judged.inputs), given, given.judged)
    judged: dict[float, dict[Way, list[float]]] = {}
    for seed in range(args.seeds):
        given.draw(seed)
        for share in shares[: None if seed < args.beside else 1]:
            for way in (*PLAIN, *(way for way in ways if not way.refit), *best):
                value = keeps(given, way, share, args, given.judged)
                judged.setdefault(share, {}).setdefault(way, []).append(value)
                said = f"  {given.name} judged, seed {seed}, {share:.3f}, {way}: {value:.1f}%"
                print(said, file=sys.stderr, flush=True)
        yield Found(given, shares, original, chosen, judged)


def choose(given: Work, ways: Sequence[Way], share: float, args: argparse.Namespace) -> dict[Way, tuple[float, float]]:
    """Every way where the choice is made: its loss to the original and accuracy."""
    images = given.chosen_on
    teacher = answers(given.model.graph, images.inputs)
    chosen = {}
    for way in ways:
        outputs = answers(pruned(given, way, share, args), images.inputs)
        chosen[way] = loss(outputs, teacher, given.model.head), accuracy(outputs, given, images)
        said = f"  {given.name} at {share:.3f}, {way}: loss {chosen[way][0]:.3f}, {chosen[way][1]:.1f}%"
        print(said, file=sys.stderr, flush=True)
    return chosen


def _way(text: str) -> Way:
    kind, ranking, *refit = text.split("/")
    if refit not in ([], ["reconstructed"]):
        raise SystemExit(f"--ways {text}: write KIND/RANKING or KIND/RANKING/reconstructed")
    return Way(kind, ranking, bool(refit))


def find_shares(given: Work, args: argparse.Namespace) -> list[float]:
    """For each of --keeps the share of the MACs at which plain L1, the best one, keeps nearest to it, on images that
    gave no statistics and do not judge; --shares as they are where they are no more. The folds are of one size."""
    if len(args.shares) <= len(args.keeps):
        return list(args.shares)
    found: dict[float, list[list[float]]] = {share: [] for share in sorted(args.shares, reverse=True)}
    originals = []
    for rows, images in given.folds:
        given.use(rows)
        originals.append(accuracy(answers(given.model.graph, images.inputs), given, images))
        for share, folds in found.items():
            folds.append([keeps(given, way, share, args, images) for way in PLAIN])
    original = float(np.mean(originals))
    kept = {}
    for share, folds in found.items():
        each = np.mean(folds, axis=0)
        kept[share] = float(each.max()) / original
        said = f"  {given.name}: plain L1 keeps {kept[share]:.1%} of {original:.1f}% at {share:.3f} of the MACs"
        print(f"{said} ({' and '.join(f'{value:.1f}' for value in each)})", file=sys.stderr, flush=True)
    nearest = [min(kept, key=lambda share: abs(kept[share] - wanted)) for wanted in args.keeps]
    return list(dict.fromkeys(nearest))


# ---------------------------------------------------------------- tables


def overview(all_found: Sequence[Found]) -> list[str]:
    lines = [
        "Accuracy in points, mean and range over the seeds; the last column: points above chance, over those of the "
        "best plain L1.",
        "",
        "| model | MACs left | seeds | original | way | accuracy | of plain L1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in all_found:
        for share in sorted(found.judged, reverse=True):
            lines += lines_of(found, share)
    return [*lines, ""]


def lines_of(found: Found, share: float) -> Iterator[str]:
    chance = 100 * found.given.chance
    ways = found.judged[share]
    plain = max(float(np.mean(ways[way])) for way in PLAIN) - chance
    for way, values in ways.items():
        mean = float(np.mean(values))
        yield (
            f"| {found.given.name} | {share:.1%} | {len(values)} | {found.original:.1f} | {way} "
            f"| {mean:.1f} ({min(values):.1f} to {max(values):.1f}) | {(mean - chance) / plain:.2f} |"
        )


def choices(found: Found) -> list[str]:
    if not found.chosen:
        return []
    images = len(found.given.chosen_on.labels)
    lines = [
        f"{found.given.name}, {found.shares[0]:.1%} of the MACs, on the {images:,} images that choose (first seed)",
        "",
        "| way | loss to the original | accuracy |",
        "|---|---|---|",
    ]
    lines += [f"| {way} | {lost:.3f} | {right:.1f} |" for way, (lost, right) in found.chosen.items()]
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--images", type=int, default=1024, help="calibration images of a draw (CIFAR-10)")
    parser.add_argument("--choose", type=int, default=side.SELECTION, help="images that choose, at most (CIFAR-10)")
    parser.add_argument("--judge", type=int, default=8000, help="images that judge, at most (CIFAR-10)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--beside", type=int, default=3, help="seeds at the shares of --keeps behind the first")
    parser.add_argument("--keeps", type=float, nargs="+", default=list(KEEPS))
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.data is None:
        print("skipped: name the folder of trained models and images (--data)")
        return
    done: list[Found] = []
    for name in args.models:
        for found in measure(work(name, args.data, args), args):
            text = "\n".join(
                line for part in (overview([*done, found]), *map(choices, [*done, found])) for line in part
            )
            if args.out:
                args.out.write_text(text)
        done.append(found)
    print(text)


if __name__ == "__main__":
    main()
