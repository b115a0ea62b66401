"""Which channels to remove: every criterion by ranking and normalization, at the same share of the MACs, untrained.

Closed gates stand for removed channels (engine.gates; the tests show that they compute the same), so that a network is
compiled once and not once for each way. Statistics are settled before and renewed after, on the images that score; for
all ways alike. Choices are looked at on the first 2,000 test images of CIFAR-10, `--judge` takes the other 8,000; of
ImageNet there are 100 images to score on and 200 to judge.

    python benchmarks/importance.py --data DIR [--models NAME=SHARE ...] [--round-to N] [--images N] [--seed N]
                                    [--only WORD ...] [--judge N]
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import peers_int8 as side
import tensorflow as tf

from toolkit.engine import prices
from toolkit.engine.allocate import allocate, widths_after
from toolkit.engine.batchnorm import _normalize, settle
from toolkit.engine.gates import find_gates, run
from toolkit.engine.graph import walk
from toolkit.engine.groups import Group, find_groups
from toolkit.engine.importance import Scores, scores
from toolkit.engine.numeric import decisions
from toolkit.engine.samples import Sample
from toolkit.engine.widths import Rounding
from toolkit.sources.keras import Keras

MODELS = {  # share of the MACs at which uniform L1 keeps 30 to 60% of the points above chance
    "resnet20_cifar10_jpeg": 0.55,
    "resnet8_cifar10_jpeg": 0.6,
    "mobilenet_v1_025_224_imagenet": 0.85,
    "mnv2_cifar10_96": 0.75,
}
BATCH = 64
PLAIN = "l1, its filter alone"


@dataclass(frozen=True)
class Images:
    inputs: Any
    labels: Any

    def batches(self) -> Iterator[Images]:
        for start in range(0, len(self.labels), BATCH):
            yield Images(self.inputs[start : start + BATCH], self.labels[start : start + BATCH])

    def samples(self, *, labels: bool = True) -> Callable[[], Iterator[Sample]]:
        return lambda: (Sample((part.inputs,), part.labels if labels else None) for part in self.batches())


def images(name: str, data: Path, args: argparse.Namespace) -> tuple[Images, Images]:
    """To score on, and to judge on."""
    if name in side.IMAGENET:
        found = side.imagenet(data / "data", 200)
        with (data / "data/imagenet_sample300/labels.csv").open(newline="") as file:
            labels = [int(line["class_index"]) for line in csv.DictReader(file) if line["role"] == "calib"]
        return Images(found.calibration, np.array(labels)), Images(found.images, found.labels)
    train, test = (dict(np.load(data / "data" / f"cifar10_jpeg_{part}.npz")) for part in ("train50k", "test10k"))
    rows = np.sort(np.random.default_rng(args.seed).permutation(len(train["labels"]))[: args.images])
    first = side.SELECTION if args.judge else 0
    judged = np.arange(first, first + (args.judge or side.SELECTION))
    drawn = ((part, side.decoded(part, where), where) for part, where in ((train, rows), (test, judged)))
    one, other = (Images(values, part["labels"][where].astype(np.int64)) for part, values, where in drawn)
    return one, other


# ---------------------------------------------------------------- a network with gates


class Gated:
    """The network with some channels closed: statistics renewed on one set of images, accuracy on another."""

    def __init__(self, graph: Any, head: str, seen: Images, judged: Images) -> None:
        self.groups, self.head, self.seen, self.judged = find_groups(graph), head, seen, judged
        self.free = [group for group in self.groups if not group.frozen]
        self.graph = settle(graph, seen.samples())
        self._gates = find_gates(self.graph, self.groups)
        self._own = {layer.name: layer for layer in self.graph.layers if _is_norm(layer)}
        self._moments = tf.function(self._batch_moments, autograph=False, reduce_retracing=True)
        self._answers = tf.function(self._renewed, autograph=False, reduce_retracing=True)

    def accuracy(self, removals: Mapping[str, Any], judged: Images | None = None) -> float:
        """In percent, on other images where given; nothing removed: that of the network as it is."""
        judged = judged or self.judged
        values = np.ones((1, self._gates.count), np.float32)
        for name, part in self._gates.split(values).items():
            part[:, removals.get(name, ())] = 0
        gates = tf.constant(values)
        found = [(len(part.labels), self._moments(tf.constant(part.inputs), gates)) for part in self.seen.batches()]
        count = sum(rows for rows, _ in found)
        moments = {name: sum(rows * each[name] for rows, each in found) / count for name in self._own}
        hits = 0
        for part in judged.batches():
            answers = self._answers(tf.constant(part.inputs), gates, moments).numpy()
            hits += int((decisions(answers, self.head) == part.labels).sum())
        return 100 * hits / len(judged.labels)

    def _batch_moments(self, inputs: Any, gates: Any) -> dict[str, Any]:
        found = {}

        def normalize(layer: Any, values: Any, **_: Any) -> Any:
            outputs, *moments = _normalize(layer, values)
            found[layer.name] = tf.stack(moments)
            return outputs

        self._run(inputs, gates, normalize)
        return found

    def _renewed(self, inputs: Any, gates: Any, moments: Mapping[str, Any]) -> Any:
        def normalize(layer: Any, values: Any, **_: Any) -> Any:
            mean, variance = tf.unstack(moments[layer.name])
            return tf.nn.batch_normalization(values, mean, variance, layer.beta, layer.gamma, layer.epsilon)

        return self._run(inputs, gates, normalize)

    def _run(self, inputs: Any, gates: Any, normalize: Callable[[Any, Any], Any]) -> Any:
        instead = {name: partial(normalize, layer) for name, layer in self._own.items()}
        return run(self.graph, self._gates, [inputs], gates, instead)


def _is_norm(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


# ---------------------------------------------------------------- the ways


def ways(net: Gated) -> Iterator[tuple[str, str, Callable[[], dict[str, Scores]]]]:
    """(criterion, ranking, its scores)."""

    def of(kind: Any, *, labels: bool = True, **options: Any) -> Callable[[], dict[str, Scores]]:
        samples = net.seen.samples(labels=labels)
        return lambda: scores(net.graph, net.groups, kind, samples=samples, head=net.head, **options)

    yield PLAIN, "local", lambda: own_filters(net.graph, net.free)
    yield "random", "local", of("random")
    for kind in ("l1", "l2", "bn_gamma"):
        for ranking in ("local", "global"):
            yield f"{kind}, as it is", ranking, of(kind, normalization="none")
            yield f"{kind}, by its mean", ranking, of(kind, normalization="mean", reduction="mean")
    yield "l2, lamp", "global", of("l2", normalization="lamp")
    for kind in ("taylor", "fisher"):
        yield kind, "local", of(kind)
        yield kind, "global", of(kind)
        yield f"{kind}, not about the mean", "global", of(kind, renewed="nothing")
        yield f"{kind}, labels drawn", "global", of(kind, labels=False)
        for normalization in ("mean", "l2", "lamp"):
            yield f"{kind}, by {normalization}", "global", of(kind, normalization=normalization)
    for normalization in ("none", "mean", "l2"):
        yield f"activation, by {normalization}", "global", of("activation", normalization=normalization)
    yield "activation, not about the mean", "global", of("activation", renewed="nothing")
    yield "activation", "local", of("activation")
    yield "reconstruction", "local", of("reconstruction")
    yield "reconstruction", "global", of("reconstruction")


def own_filters(model: Any, free: Iterable[Group]) -> dict[str, Scores]:
    """Plain L1, as Li et al. 2017 (arXiv:1608.08710) have it: sum of |w| of the filters that make a channel."""
    return {group.id: _filters(model, group) for group in free}


def _filters(model: Any, group: Group) -> Scores:
    total = np.zeros(group.size)
    for slot in group.slots:
        if slot.side == "out" and slot.weight != "bias":
            rows = np.moveaxis(np.abs(np.asarray(model.get_layer(slot.layer).weights[slot.index])), slot.axis, 0)
            total += rows.reshape(len(rows), -1).sum(axis=1)[slot.positions].sum(axis=1)
    return total


def measure(name: str, share: float, data: Path, args: argparse.Namespace) -> None:
    model = Keras().load(data / "models" / f"{name}.keras")
    net = Gated(model.graph, model.head, *images(name, data, args))
    price, graph, rounding = prices.macs(walk(net.graph), net.free), walk(net.graph), Rounding(args.round_to)
    whole, chance = net.accuracy({}), 100 / int(model.graph.outputs[0].shape[-1])
    print(f"\n{name}: {whole:.1f}, {len(net.judged.labels):,} images, channels in steps of {args.round_to}\n")
    print(
        "| criterion | ranking | MACs left | accuracy | points above chance, of plain L1's |\n|-|-|-|-|-|", flush=True
    )
    plain = 0.0
    for criterion, ranking, found in ways(net):
        if criterion != PLAIN and args.only and not any(word in f"{criterion}/{ranking}" for word in args.only):
            continue
        how: Any = ranking
        removals = allocate(graph, net.groups, found(), share, ranking=how, cost=price, rounding=rounding)
        left, accuracy = price(widths_after(net.free, removals)) / price({}), net.accuracy(removals)
        if criterion == PLAIN:
            plain, share = accuracy - chance, left  # all others are held to what it reached
        ratio = f"{(accuracy - chance) / plain:.2f}"
        print(f"| {criterion} | {ranking} | {left:.1%} | {accuracy:.1f} | {ratio} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", nargs="+", default=[f"{name}={share}" for name, share in MODELS.items()])
    parser.add_argument("--round-to", type=int, default=4)
    parser.add_argument("--images", type=int, default=512, help="training images of CIFAR-10 that score")
    parser.add_argument("--seed", type=int, default=0, help="of their draw")
    parser.add_argument("--only", nargs="+", default=[], help="criteria that contain one of these words")
    parser.add_argument("--judge", type=int, default=0, help="so many test images behind the first 2,000")
    args = parser.parse_args()
    if args.data is None:
        print("skipped: name the folder of trained models and images (--data)")
        return
    for text in args.models:
        name, _, share = text.partition("=")
        measure(name, float(share or MODELS[name]), args.data, args)


if __name__ == "__main__":
    main()
