"""What pruning leaves without any training: by criterion and ranking, with and without reconstruction.

Every way, plain L1 too, gets the same: BatchNormalization is settled on a draw of calibration images (the same function
with the statistics of these images), channels go, what is behind them is refitted where the way says so, and statistics
are renewed on the same images. Plain L1 is uniform, the same share of each group, and it is two: by the filter's own
weights alone (`filter`) and by all weights of the group (`l1`, as `prune` has it). All are held against the better of
the two on the very images that judge.

The shares of the MACs are those of --shares at which plain L1 (the better one) keeps nearest to each of --keeps of the
original's accuracy. They and the ways are chosen, the ways at the first of --keeps and by the loss to the original's
answers, on other images than those judged. CIFAR-10: calibration images are drawn from the training images, once for
each seed; the first 2,000 test images choose, the others judge. ImageNet: there are 100 calibration images and no more;
they find the shares a quarter after the other, each with the statistics of the rest, a seed draws 75 of them, the 25
left of the first seed choose the ways, and the 200 evaluation images judge. No label is used but to count: slopes are of labels drawn from what the model predicts.

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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import peers_int8 as side
from importance import own_filters

from toolkit.engine.allocate import allocate
from toolkit.engine.batchnorm import reestimate_batchnorm, settle
from toolkit.engine.graph import walk
from toolkit.engine.groups import find_groups
from toolkit.engine.importance import scores
from toolkit.engine.numeric import decisions
from toolkit.engine.predict import predict_arrays
from toolkit.engine.reconstruct import reconstruct
from toolkit.engine.samples import Sample
from toolkit.engine.surgery import remove
from toolkit.engine.widths import Rounding
from toolkit.sources.keras import Keras

MODELS = ("resnet20_cifar10_jpeg", "resnet8_cifar10_jpeg", "mnv2_cifar10_96", "mobilenet_v1_025_224_imagenet")
SHARES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3)
KEEPS = (0.45, 0.6, 0.3)  # of the original's accuracy: the middle of 30 to 60%, then its ends
WAYS = (
    "l1/local/reconstructed",
    "taylor/global",
    "fisher/global",
    "activation/global",
    "taylor/global/reconstructed",
    "fisher/global/reconstructed",
    "activation/global/reconstructed",
    "reconstruction/global/reconstructed",
)
BATCH = 64  # passes/prune.py: a batch's own statistics normalize
DRAWN = 75  # of ImageNet's 100 calibration images


@dataclass(frozen=True)
class Way:
    """How channels are chosen, and whether what is behind them is refitted."""

    kind: str
    ranking: str
    refit: bool

    def __str__(self) -> str:
        return f"{self.kind}, {self.ranking}{', reconstructed' if self.refit else ''}"


PLAIN = (Way("filter", "local", refit=False), Way("l1", "local", refit=False))


@dataclass(frozen=True)
class Images:
    images: Any
    labels: Any


@dataclass
class Work:
    """A model and its images. scored: criterion -> scores, of the calibration images drawn last."""

    name: str
    model: Any  # core.Model
    pool: Any  # calibration images to draw from
    folds: list[tuple[Any, Images]]  # for the shares: calibration (None: the first draw) and other images that count
    chosen_on: Images
    judged: Images
    count: int  # images a draw has
    chance: float
    calibration: Any = None
    graph: Any = None  # settled on them
    groups: Any = None
    scored: dict[str, Any] = field(default_factory=dict)

    def draw(self, seed: int) -> None:
        """Other calibration images; of ImageNet's the ones left out choose."""
        order = np.random.default_rng(seed).permutation(len(self.pool))
        self.use(_pick(self.pool, np.sort(order[: self.count])))

    def use(self, calibration: Any) -> None:
        if calibration is self.calibration:
            return
        self.calibration = calibration
        self.graph = settle(self.model.graph, self.samples)
        self.groups = find_groups(self.graph)
        self.scored.clear()

    def samples(self) -> Iterator[Sample]:
        for start in range(0, len(self.calibration), BATCH):
            yield Sample((self.calibration[start : start + BATCH],))

    def scores(self, way: Way) -> Any:
        """As `prune` finds them, and the filter's own weights."""
        key = f"{way.kind} {way.refit}"
        if key not in self.scored:
            self.scored[key] = self._scores(way)
        return self.scored[key]

    def _scores(self, way: Way) -> Any:
        if way.kind == "filter":
            return own_filters(self.graph, [group for group in self.groups if not group.frozen])
        kind: Any = way.kind
        renewed: Any = "biases" if way.refit else "statistics"
        return scores(self.graph, self.groups, kind, samples=self.samples, head=self.model.head, renewed=renewed)


class Jpegs:
    """Images that are decoded when they are drawn."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def __len__(self) -> int:
        return len(self.found["labels"])


def _pick(pool: Any, rows: Any) -> Any:
    return side.decoded(pool.found, rows) if isinstance(pool, Jpegs) else pool[rows]


def work(name: str, data: Path, args: argparse.Namespace) -> Work:
    model = Keras().load(data / "models" / f"{name}.keras")
    if name in side.IMAGENET:
        given = side.imagenet(data / "data", 200)
        with (data / "data/imagenet_sample300/labels.csv").open(newline="") as file:
            labels = np.array([int(line["class_index"]) for line in csv.DictReader(file) if line["role"] == "calib"])
        order = np.random.default_rng(0).permutation(len(labels))
        quarters = [(np.setdiff1d(order, part), part) for part in np.split(order, 4)]  # the last: what seed 0 leaves
        images = given.calibration
        folds = [(images[seen], Images(images[out], labels[out])) for seen, out in quarters]
        judged = Images(given.images, given.labels)
        found = Work(name, model, images, folds, folds[-1][1], judged, DRAWN, 0.001)
    else:
        train, test = (dict(np.load(data / "data" / f"cifar10_jpeg_{part}.npz")) for part in ("train50k", "test10k"))
        parts = [np.arange(side.SELECTION)[: args.choose], np.arange(side.SELECTION, len(test["labels"]))[: args.judge]]
        chosen_on, judged = (Images(side.decoded(test, rows), test["labels"][rows]) for rows in parts)
        found = Work(name, model, Jpegs(train), [(None, chosen_on)], chosen_on, judged, args.images, 0.1)
    return found


# ---------------------------------------------------------------- one pruned model


def pruned(given: Work, way: Way, share: float, args: argparse.Namespace) -> Any:
    graph = given.graph
    ranking: Any = way.ranking
    rounding = Rounding(args.round_to)
    removals = allocate(walk(graph), given.groups, given.scores(way), share, ranking=ranking, rounding=rounding)
    started = time.process_time()
    made = reconstruct(graph, removals, given.samples).graph if way.refit else remove(graph, removals)
    made = reestimate_batchnorm(made, (sample.inputs for sample in given.samples()))
    print(f"    {way}: {time.process_time() - started:.0f} s of processors", file=sys.stderr, flush=True)
    return made


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
    given.draw(0)
    shares = find_shares(given, args)
    chosen, made = choose(given, shares[0], args)
    sides = [[way for way in chosen if way.refit == refit and way not in PLAIN] for refit in (False, True)]
    best = [min(ways, key=lambda way: chosen[way][0]) for ways in sides if ways]
    original = accuracy(answers(given.model.graph, given.judged.images), given, given.judged)
    judged: dict[float, dict[Way, list[float]]] = {}
    for seed in range(args.seeds):
        if seed:
            given.draw(seed)
            made.clear()
        for share in shares[: None if seed < args.beside else 1]:
            for way in (*PLAIN, *best):
                graph = made[way] if share == shares[0] and way in made else pruned(given, way, share, args)
                value = accuracy(answers(graph, given.judged.images), given, given.judged)
                judged.setdefault(share, {}).setdefault(way, []).append(value)
                said = f"  {given.name} judged, seed {seed}, {share:.2f}, {way}: {value:.1f}%"
                print(said, file=sys.stderr, flush=True)
        yield Found(given, shares, original, chosen, judged)


def choose(
    given: Work, share: float, args: argparse.Namespace
) -> tuple[dict[Way, tuple[float, float]], dict[Way, Any]]:
    """Every way where the choice is made: its loss to the original and accuracy; and the pruned models."""
    images = given.chosen_on
    teacher = answers(given.model.graph, images.images)
    chosen, made = {}, {}
    for way in (*PLAIN, *map(_way, args.ways)):
        made[way] = pruned(given, way, share, args)
        outputs = answers(made[way], images.images)
        chosen[way] = loss(outputs, teacher, given.model.head), accuracy(outputs, given, images)
        said = f"  {given.name} at {share:.2f}, {way}: loss {chosen[way][0]:.3f}, {chosen[way][1]:.1f}%"
        print(said, file=sys.stderr, flush=True)
    return chosen, made


def _way(text: str) -> Way:
    kind, ranking, *refit = text.split("/")
    if refit not in ([], ["reconstructed"]):
        raise SystemExit(f"--ways {text}: write KIND/RANKING or KIND/RANKING/reconstructed")
    return Way(kind, ranking, bool(refit))


def find_shares(given: Work, args: argparse.Namespace) -> list[float]:
    """For each of --keeps the share of the MACs at which plain L1, the better one, keeps nearest to it, on images that
    gave no statistics and do not judge."""
    first = given.calibration
    rights = [answers(given.model.graph, images.images) for _, images in given.folds]
    original = _mean(accuracy(found, given, images) for found, (_, images) in zip(rights, given.folds, strict=True))
    kept: dict[float, float] = {}
    for share in sorted(args.shares, reverse=True):
        found = plain_keeps(given, share, args)
        kept[share] = max(found) / original
        said = f"  {given.name}: plain L1 keeps {kept[share]:.1%} of {original:.1f}% at {share:.3f} of the MACs"
        print(f"{said} ({' and '.join(f'{value:.1f}' for value in found)})", file=sys.stderr, flush=True)
        if kept[share] < min(args.keeps):
            break
    given.use(first)
    nearest = [min(kept, key=lambda share: abs(kept[share] - wanted)) for wanted in args.keeps]
    return list(dict.fromkeys(nearest))


def plain_keeps(given: Work, share: float, args: argparse.Namespace) -> list[float]:
    """Accuracy of each plain L1, over the folds (which are of one size)."""
    found: list[list[float]] = []
    for calibration, images in given.folds:
        if calibration is not None:
            given.use(calibration)
        outputs = [answers(pruned(given, way, share, args), images.images) for way in PLAIN]
        found.append([accuracy(part, given, images) for part in outputs])
    return [_mean(column) for column in zip(*found, strict=True)]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


# ---------------------------------------------------------------- tables


def overview(all_found: Sequence[Found]) -> list[str]:
    lines = [
        "Accuracy in points, mean and range over the seeds; the last column: points above chance, over those of the "
        "better plain L1.",
        "",
        "| model | MACs left | seeds | original | way | accuracy | of plain L1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in all_found:
        for share in sorted(found.judged, reverse=True):
            lines += rows(found, share)
    return [*lines, ""]


def rows(found: Found, share: float) -> Iterator[str]:
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
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--images", type=int, default=1024, help="calibration images of a draw (CIFAR-10)")
    parser.add_argument("--choose", type=int, default=side.SELECTION, help="images that choose, at most (CIFAR-10)")
    parser.add_argument("--judge", type=int, default=8000, help="images that judge, at most (CIFAR-10)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--beside", type=int, default=3, help="seeds at the shares of --keeps behind the first")
    parser.add_argument("--keeps", type=float, nargs="+", default=list(KEEPS))
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
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
