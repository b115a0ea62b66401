"""A step of quantization-aware training against one of plain training of the same network, interleaved in one process.

Labels, batches, optimizer and loop are the same; only the rounding differs. Target: at most 2.

    python benchmarks/qat_step.py [--model MODEL.keras] [--batch 64] [--steps 10] [--rounds 7]
                                  [--batchnorm corrected]
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

TARGET = 2.0


def small_resnet() -> Any:
    """ResNet20 for 32 x 32 pixels (He et al. 2016, arXiv:1512.03385, section 4.2), random weights."""
    import keras
    from keras import layers

    def block(x: Any, filters: int, stride: int) -> Any:
        y = layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(y))
        return layers.ReLU()(layers.Add()([y, x if stride == 1 else layers.Conv2D(filters, 1, stride)(x)]))

    image = keras.Input((32, 32, 3), name="image")
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", use_bias=False)(image)))
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        for number in range(3):
            x = block(x, filters, stride if number == 0 else 1)
    return keras.Model(image, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model with a softmax; a ResNet20 for CIFAR-10 without")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="in one turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batchnorm", default="frozen", choices=["frozen", "corrected"])
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from toolkit.engine.flatten import flatten
    from toolkit.engine.loss import Target
    from toolkit.engine.prepare import folded_norms, prepare
    from toolkit.engine.qat import Rounding, find_ranges, rounding_graph
    from toolkit.engine.step import Batches, Trainer, repeatable
    from toolkit.engine.teaching import Teaching

    graph = flatten(keras.models.load_model(args.model, compile=False) if args.model else small_resnet())
    prepared, name = prepare(graph).graph, graph.inputs[0].name
    count = args.batch * args.steps
    generator = np.random.default_rng(0)
    images = generator.uniform(0, 1, (count, *graph.inputs[0].shape[1:])).astype(np.float32)
    labels = generator.integers(0, graph.outputs[0].shape[-1], count)
    norms = folded_norms(graph) if args.batchnorm == "corrected" else {}
    ranges = find_ranges(prepared, {name: images[:64]})
    rounding = rounding_graph(prepared, ranges, Rounding(moving_steps=10**6, norm_steps=10**6, norms=norms))
    how = Teaching(1, args.batch, 1e-4, target=Target(alpha=0.0))
    batches = Batches(images, labels, args.batch, 0)
    trainers = {"float": Trainer(graph, None, batches, how), "qat": Trainer(rounding, None, batches, how)}
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(args.rounds + 1):
        for kind, trainer in trainers.items():
            started = perf_counter()
            with repeatable():
                trainer.epoch(1, lambda *_: None)
            if number:  # the first turn traces
                seconds[kind].append((perf_counter() - started) / args.steps)
    ratios = [qat / plain for plain, qat in zip(seconds["float"], seconds["qat"], strict=True)]
    ratio = statistics.median(ratios)
    each = ", ".join(f"{kind} {1e3 * statistics.median(values):.1f} ms" for kind, values in seconds.items())
    print(f"{each} a step of {args.batch} images; ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print("PASS" if ratio <= TARGET else "FAIL", f"(target: at most {TARGET:g})")


if __name__ == "__main__":
    main()
