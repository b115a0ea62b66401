"""Optional: the real images named by EDGEKIT_DATA."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolkit.core import Preprocessing
from toolkit.datasets.csv import Csv
from toolkit.datasets.npz import Npz
from toolkit.datasets.preprocess import PreprocessSpec
from toolkit.datasets.splits import SplitSpec, make_splits

FOLDER = Path(os.environ.get("EDGEKIT_DATA", ""))
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not os.environ.get("EDGEKIT_DATA"), reason="EDGEKIT_DATA names no folder of real images"),
]


def find(name: str) -> Path:
    return next(FOLDER.rglob(name))


def test_real_trashnet_has_its_subsets() -> None:
    records = Npz(path=find("trashnet6_160.npz")).load()
    spec = SplitSpec(train="train", selection="val", test="test")
    made = make_splits(records, None, spec, PreprocessSpec.model_validate("raw").resolve((None, 160, 160, 3)), 0)
    assert (len(records), len(made.test), made.test.classes[0]) == (2527, 431, "glass")
    assert next(made.test.batches(2)).inputs["image"].shape == (2, 160, 160, 3)


def test_real_trashnet_holds_copies_that_must_not_leak() -> None:
    """Two training images are in its own val or test parts as well, and three images have two labels."""
    records = Npz(path=find("trashnet6_160.npz")).load()
    made = make_splits(records, None, SplitSpec(train="train", selection="val", test="test"), Preprocessing(), 0)
    (left,) = made.left_out
    assert (left.reason, len(left.names), len(made.train or ())) == ("elsewhere", 2, 1766)
    assert made.warnings[1].startswith(f"{records.source}: 3 images equal one with another label")
    digests = [set(part.digests) for part in made.present()]
    assert all(not one & other for i, one in enumerate(digests) for other in digests[:i])


def test_real_cifar_has_all_its_images() -> None:
    main, held = (Npz(path=find(f"cifar10_jpeg_{name}.npz")).load() for name in ("train50k", "test10k"))
    made = make_splits(main, held, SplitSpec(selection=2000, calibration=500), Preprocessing(), 0)
    assert [len(part) for part in made.present()] == [49_500, 2000, 500, 8000]
    assert made.test.per_class == (800,) * 10
    assert made.left_out == ()


def test_real_mnist_pairs_become_subsets() -> None:
    records = Npz(path=find("mnist_13k.npz")).load()
    assert (records.subsets.count("train"), records.subsets.count("test")) == (10_000, 3000)
    assert records.read(0).shape == (28, 28, 1)


def test_real_imagenet_sample_keeps_a_thousand_classes() -> None:
    records = Csv(path=find("labels.csv"), classes_file=find("imagenet_classes.csv")).load()
    spec = SplitSpec(train=None, calibration="calib", test="eval")
    made = make_splits(records, None, spec, PreprocessSpec.model_validate("signed").resolve((None, 224, 224, 3)), 0)
    assert (len(made.test), len(made.test.classes)) == (200, 1000)
    images = next(made.test.batches(4)).inputs["image"]
    assert images.min() >= -1
    assert images.max() <= 1
    assert any("no image of 900 of 1000 classes" in warning for warning in made.warnings)
