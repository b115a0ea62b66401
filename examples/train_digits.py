"""Trains the demo's CNN on scikit-learn's handwritten digits.

    python examples/train_digits.py --out build/digits.keras

Uses the train split of recipes/digits-demo.toml and no other image, so that the recipe's test images stay unseen.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
EPOCHS, BATCH, SEED = 20, 32, 0


def network() -> Any:
    """Conv 32, pool, conv 64, pool, conv 64, dense 64, dense 10, with BatchNormalization: 8x8x1 to ten classes."""
    import keras
    from keras import layers

    image = keras.Input((8, 8, 1), name="image")
    x = image
    for number, (width, pool) in enumerate(((32, True), (64, True), (64, False)), start=1):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv{number}")(x)
        # 0.9: at Keras' 0.99 the moving statistics would need more steps than these few images give
        x = layers.BatchNormalization(momentum=0.9, name=f"bn{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
        if pool:
            x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(64, activation="relu", name="dense")(x)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="classes")(x), name="digits")


def arrays(split: Any) -> tuple[Any, Any]:
    """Images and labels of a split."""
    import numpy as np

    return np.concatenate([batch.inputs["image"] for batch in split.batches(256)]), split.labels


def tell(epoch: int, logs: dict[str, float]) -> None:
    """A line for every fifth epoch."""
    if (epoch + 1) % 5 == 0:
        print(f"  epoch {epoch + 1} of {EPOCHS}: {logs['accuracy']:.1%} on the train split", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/digits.keras"))
    out = parser.parse_args().out
    print("training the demo's CNN on scikit-learn's digits ...", file=sys.stderr)
    import keras

    from toolkit.data import load_splits
    from toolkit.recipe_reader import load_recipe

    recipe = load_recipe(ROOT / "recipes" / "digits-demo.toml")
    splits = load_splits(recipe.data, recipe.data.preprocess.resolve((None, 8, 8, 1)), seed=recipe.seed)
    if splits.train is None or splits.selection is None:
        raise SystemExit("the recipe has no train or selection split")
    keras.utils.set_random_seed(SEED)
    model = network()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    told = keras.callbacks.LambdaCallback(on_epoch_end=tell)
    model.fit(*arrays(splits.train), batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[told])
    _, accuracy = model.evaluate(*arrays(splits.selection), verbose=0)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.keras")
    model.save(partial)
    partial.replace(out)
    print(f"wrote {out}: {accuracy:.1%} on {len(splits.selection)} selection images", file=sys.stderr)


if __name__ == "__main__":
    main()
