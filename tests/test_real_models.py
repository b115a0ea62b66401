"""Real trained models, by `edgekit eval`: each reaches the accuracy that is known of it (EDGEKIT_DATA, its README)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from toolkit.measuring import evaluate_file

CIFAR = ("cifar10_jpeg_test10k.npz", None)
IMAGENET = ("imagenet_sample300/labels.csv", "eval")  # it shows 998 of the 1,000 classes
MNIST = ("mnist_13k.npz", "test")
TRASH = ("trashnet6_160.npz", "test")

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("EDGEKIT_DATA"), reason="set EDGEKIT_DATA to the folder of real models"),
]


@pytest.mark.parametrize(
    ("file", "data", "preprocess", "accuracy"),
    [
        ("mlperf_resnet8_cifar10.keras", CIFAR, "raw", 75.5),
        ("legacy/pretrainedResnet.h5", CIFAR, "raw", 75.5),
        ("resnet8_cifar10_jpeg.keras", CIFAR, "raw", 84.1),
        ("resnet20_cifar10_jpeg.keras", CIFAR, "raw", 88.4),
        ("mnv2_cifar10_96.keras", CIFAR, "raw", 91.3),
        ("onnx/resnet20_cifar10_torch.onnx", CIFAR, "imagenet", 81.0),
        ("onnx/resnet20_cifar10_torch_dynamo.onnx", CIFAR, "imagenet", 81.0),
        ("mobilenet_v1_025_224_imagenet.keras", IMAGENET, "mobilenet", 59.0),
        ("mobilenet_v2_100_224_imagenet_from_int8.keras", IMAGENET, "mobilenet_v2", 89.0),
        ("mnv2_trashnet6_160.keras", TRASH, "raw", 85.4),
        ("legacy/mnist_dw.h5", MNIST, "unit", 91.0),
        ("legacy/mnist_resnet.h5", MNIST, "unit", 97.5),
    ],
)
def test_real_model_reaches_its_accuracy(file: str, data: tuple[str, Any], preprocess: str, accuracy: float) -> None:
    folder = Path(os.environ["EDGEKIT_DATA"])
    images = str(folder / "data" / data[0])
    if data == IMAGENET:
        images = f"{{path = '{images}', num_classes = 1000}}"
    found = evaluate_file(folder / "models" / file, data=images, subset=data[1], preprocess=preprocess)
    top1 = next(row["value"] for row in found["measurements"] if row["name"] == "top1")
    assert 100 * top1 == pytest.approx(
        accuracy, abs=0.25
    )  # known to one decimal; decoders and batches move a few images
