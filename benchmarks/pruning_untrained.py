"""What pruning leaves without any training: by criterion and ranking, with and without reconstruction.

Every pruned model, plain uniform L1 too, gets the same BatchNormalization re-estimation on the same images. The share
of the MACs is the one of --shares at which uniform L1 keeps nearest to 45% of the original's accuracy, and the ways are
chosen, by the loss to the original's answers, on other images than those judged. CIFAR-10: calibration images are
drawn from the training images, once for each seed; the first 2,000 test images choose, the other 8,000 judge.
ImageNet: there are 100 calibration images and no more; a seed draws 75 of them, the 25 left (of the first seed) choose,
and the 200 evaluation images judge. No label is used but to count.

    python benchmarks/pruning_untrained.py --data DIR [--models NAME ...] [--images N] [--seeds N] [--shares S ...]
                                           [--ways KIND/RANKING ...] [--round-to N] [--out FILE.md]
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

from toolkit.engine.allocate import allocate
from toolkit.engine.batchnorm import reestimate_batchnorm
from toolkit.engine.graph import walk
from toolkit.engine.groups import find_groups
from toolkit.engine.importance import scores
from toolkit.engine.numeric import decisions
from toolkit.engine.predict import predict_arrays
from toolkit.engine.reconstruct import reconstruct, saliencies
from toolkit.engine.samples import Sample
from toolkit.engine.surgery import remove
from toolkit.engine.widths import Rounding
from toolkit.sources.keras import Keras

MODELS = ("resnet20_cifar10_jpeg", "resnet8_cifar10_jpeg", "mnv2_cifar10_96", "mobilenet_v1_025_224_imagenet")
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
WAYS = ("l1/local", "l1/global", "fisher/global", "activation/global", "reconstruction/local", "reconstruction/global")
KEEPS = 0.45  # of the original's accuracy: the middle of 30 to 60%
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


PLAIN = Way("l1", "local", refit=False)


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
    share_on: Images
    chosen_on: Images
    judged: Images
    count: int  # images a draw has
    chance: float
    groups: Any = None
    calibration: Any = None
    scored: dict[str, Any] = field(default_factory=dict)

    def draw(self, seed: int) -> None:
        """Other calibration images; of ImageNet's the ones left out choose."""
        order = np.random.default_rng(seed).permutation(len(self.pool))
        self.calibration = _pick(self.pool, np.sort(order[: self.count]))
        self.scored.clear()

    def samples(self) -> Iterator[Sample]:
        for start in range(0, len(self.calibration), BATCH):
            yield Sample((self.calibration[start : start + BATCH],))

    def scores(self, kind: str) -> Any:
        if kind not in self.scored:
            graph, groups = self.model.graph, self.groups
            if kind == "reconstruction":
                found = saliencies(graph, groups, self.samples)
            else:
                normalization: Any = "none" if kind in ("fisher", "activation") else "mean"
                given: Any = kind
                found = scores(
                    graph, groups, given, samples=self.samples, head=self.model.head, normalization=normalization
                )
            self.scored[kind] = found
        return self.scored[kind]


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
        rest = np.random.default_rng(0).permutation(len(labels))[DRAWN:]  # what the first seed leaves
        every, left = Images(given.calibration, labels), Images(given.calibration[rest], labels[rest])
        judged = Images(given.images, given.labels)
        found = Work(name, model, given.calibration, every, left, judged, DRAWN, 0.001)
    else:
        train, test = (dict(np.load(data / "data" / f"cifar10_jpeg_{part}.npz")) for part in ("train50k", "test10k"))
        parts = [np.arange(side.SELECTION)[: args.choose], np.arange(side.SELECTION, len(test["labels"]))[: args.judge]]
        chosen_on, judged = (Images(side.decoded(test, rows), test["labels"][rows]) for rows in parts)
        found = Work(name, model, Jpegs(train), chosen_on, chosen_on, judged, args.images, 0.1)
    found.groups = find_groups(model.graph)
    return found


# ---------------------------------------------------------------- one pruned model


def pruned(given: Work, way: Way, share: float, args: argparse.Namespace) -> Any:
    graph = given.model.graph
    ranking: Any = way.ranking
    rounding = Rounding(args.round_to)
    removals = allocate(walk(graph), given.groups, given.scores(way.kind), share, ranking=ranking, rounding=rounding)
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
    """chosen: way -> (loss to the original, accuracy) where the choice is made; judged: way -> accuracy by seed."""

    given: Work
    share: float
    original: float
    chosen: dict[Way, tuple[float, float]]
    judged: dict[Way, list[float]]


def measure(given: Work, args: argparse.Namespace) -> Found:
    given.draw(0)
    ways = [_way(text, refit=refit) for text in args.ways for refit in (False, True)]
    teacher = answers(given.model.graph, given.chosen_on.images)
    share = find_share(given, args)
    chosen = {}
    for way in ways:
        outputs = answers(pruned(given, way, share, args), given.chosen_on.images)
        chosen[way] = loss(outputs, teacher, given.model.head), accuracy(outputs, given, given.chosen_on)
        print(
            f"  {given.name} at {share:.2f}, {way}: loss {chosen[way][0]:.3f}, {chosen[way][1]:.1f}%", file=sys.stderr
        )
    best = [min((way for way in ways if way.refit == refit), key=lambda way: chosen[way][0]) for refit in (False, True)]
    finalists = [PLAIN, Way("l1", "local", refit=True), *best]
    judged: dict[Way, list[float]] = {way: [] for way in dict.fromkeys(finalists)}
    for seed in range(args.seeds):
        given.draw(seed)
        for way, values in judged.items():
            outputs = answers(pruned(given, way, share, args), given.judged.images)
            values.append(accuracy(outputs, given, given.judged))
            print(f"  {given.name} judged, seed {seed}, {way}: {values[-1]:.1f}%", file=sys.stderr, flush=True)
    original = accuracy(answers(given.model.graph, given.judged.images), given, given.judged)
    return Found(given, share, original, chosen, judged)


def _way(text: str, *, refit: bool) -> Way:
    kind, ranking = text.split("/")
    return Way(kind, ranking, refit)


def find_share(given: Work, args: argparse.Namespace) -> float:
    """The share of the MACs at which uniform L1 keeps nearest to KEEPS of the accuracy, where the choice is made (of
    ImageNet on all calibration images: L1 takes nothing from them but statistics)."""
    images = given.share_on
    original = accuracy(answers(given.model.graph, images.images), given, images)
    misses = {}
    for share in args.shares if len(args.shares) > 1 else ():
        outputs = answers(pruned(given, PLAIN, share, args), images.images)
        kept = accuracy(outputs, given, images) / original
        misses[share] = abs(kept - KEEPS)
        print(f"  {given.name}: uniform L1 keeps {kept:.0%} at {share:.2f} of the MACs", file=sys.stderr, flush=True)
        if kept < KEEPS:
            break
    return float(min(misses, key=lambda share: misses[share]) if misses else args.shares[0])


# ---------------------------------------------------------------- tables


def overview(all_found: Sequence[Found]) -> list[str]:
    lines = [
        "Accuracy in points, mean and range over the seeds; the last column: points above chance, over uniform L1's.",
        "",
        "| model | MACs left | original | way | accuracy | of uniform L1 |",
        "|---|---|---|---|---|---|",
    ]
    for found in all_found:
        chance = 100 * found.given.chance
        plain = float(np.mean(found.judged[PLAIN])) - chance
        for way, values in found.judged.items():
            mean = float(np.mean(values))
            lines.append(
                f"| {found.given.name} | {found.share:.0%} | {found.original:.1f} | {way} "
                f"| {mean:.1f} ({min(values):.1f} to {max(values):.1f}) | {(mean - chance) / plain:.2f} |"
            )
    return [*lines, ""]


def choices(found: Found) -> list[str]:
    lines = [
        f"{found.given.name}, {found.share:.0%} of the MACs, on the {len(found.given.chosen_on.labels):,} images that "
        "choose (first seed): loss to the original, accuracy",
        "",
        "| criterion, ranking | re-estimated | reconstructed |",
        "|---|---|---|",
    ]
    for way in found.chosen:
        if not way.refit:
            pair = [found.chosen[w] for w in (way, Way(way.kind, way.ranking, refit=True))]
            lines.append(f"| {way} | " + " | ".join(f"{one:.2f}, {two:.1f}%" for one, two in pair) + " |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--images", type=int, default=1024, help="calibration images of a draw (CIFAR-10)")
    parser.add_argument("--choose", type=int, default=side.SELECTION, help="images that choose, at most (CIFAR-10)")
    parser.add_argument("--judge", type=int, default=8000, help="images that judge, at most (CIFAR-10)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    all_found: list[Found] = []
    for name in args.models:
        all_found.append(measure(work(name, args.data, args), args))
        parts = [overview(all_found), *map(choices, all_found)]
        text = "\n".join(line for part in parts for line in part)
        if args.out:
            args.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
