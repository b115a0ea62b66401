"""Groups and surgery on the networks of keras.applications and on trained ones.

On each: which channels must stay and why (the table is the whole truth: anything else that freezes fails), half of the
multiply-accumulates can go, and what is cut computes what masking computes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.engine.law import PIXELS, TOLERANCE, difference, images, lively, outputs, random_removals
from toolkit.engine import prices
from toolkit.engine.cost import cost
from toolkit.engine.flatten import flatten
from toolkit.engine.graph import walk
from toolkit.engine.groups import find_groups, frozen_channels
from toolkit.engine.surgery import mask, remove
from toolkit.engine.widths import Rounding, for_share

WITHIN = 0.03  # of all MACs: how far from one half a network may end
CLASSES = 1000
NORMALIZED = "normalizes over the channels, so that each depends on the others"
# ConvNeXt normalizes its trunk, stage by stage, over all channels: 96 + 96 of the stem, then 192, 384 and 768
CONVNEXT = {NORMALIZED: 96 + 96 + 192 + 384 + 768}

# network: side of its images, all its channels, those that must stay besides the classes it gives, by reason
NETWORKS: dict[str, tuple[int, int, dict[str, int]]] = {
    "ResNet50": (32, 12456, {}),
    "ResNet50V2": (32, 12456, {}),
    "MobileNet": (32, 6984, {}),
    "MobileNetV2": (32, 10128, {}),
    "MobileNetV3Small": (32, 5872, {}),
    "MobileNetV3Large": (32, 9696, {}),
    "EfficientNetB0": (32, 12404, {}),
    "EfficientNetV2B0": (32, 16840, {}),
    "DenseNet121": (32, 11240, {}),
    "InceptionV3": (75, 18216, {}),
    "VGG16": (64, 13416, {}),
    "Xception": (71, 20304, {}),
    "ConvNeXtTiny": (32, 29032, CONVNEXT),
    "NASNetMobile": (32, 12956, {}),
    "InceptionResNetV2": (75, 31272, {}),
}
QUICK = "MobileNetV2"
TRAINED = {  # file: its classes
    "mlperf_resnet8_cifar10": 10,
    "resnet8_cifar10_jpeg": 10,
    "resnet20_cifar10_jpeg": 10,
    "mobilenet_v1_025_224_imagenet": 1000,
    "mobilenet_v2_100_224_imagenet_from_int8": 1000,
    "mnv2_trashnet6_160": 6,
    "mnv2_cifar10_96": 10,
}


def built(name: str) -> Any:
    """With random weights and fitting statistics, flat, and with logits as its output."""
    keras.utils.set_random_seed(0)
    side = NETWORKS[name][0]
    make = getattr(keras.applications, name)
    model = make(input_shape=(side, side, 3), weights=None, classes=CLASSES, classifier_activation=None)
    return lively(flatten(model))


@pytest.fixture(
    scope="module", params=[QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS if name != QUICK)]
)
def network(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, built(request.param)


def test_only_these_channels_must_stay(network: tuple[str, Any]) -> None:
    name, model = network
    groups = find_groups(model)
    found = frozen_channels(groups)
    print(f"{name}: {found.frozen:,} of {found.channels:,} channels must stay ({found.share:.1%})")
    _, channels, expected = NETWORKS[name]
    reasons: dict[str, int] = {}
    for reason, count in found.reasons:
        kind = NORMALIZED if reason.endswith(NORMALIZED) else "is an output of the model"
        assert reason.endswith(kind), reason
        reasons[kind] = reasons.get(kind, 0) + count
    assert found.channels == channels
    assert reasons == {"is an output of the model": CLASSES, **expected}


def test_half_of_the_macs_can_go(network: tuple[str, Any]) -> None:
    name, model = network
    share = half(model)
    print(f"{name}: {share:.1%} of the MACs are left")
    assert abs(share - 0.5) <= WITHIN


def test_cut_network_computes_what_the_masked_one_computes(network: tuple[str, Any]) -> None:
    holds(network[1], PIXELS)


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("EDGEKIT_DATA"), reason="EDGEKIT_DATA names no folder")
@pytest.mark.parametrize("name", TRAINED)
def test_trained_network_is_cut_to_half_and_loses_no_more_than_masking(name: str) -> None:
    folder = Path(os.environ["EDGEKIT_DATA"]) / "models"
    model = flatten(keras.models.load_model(folder / f"{name}.keras", compile=False))
    model.layers[-1].activation = keras.activations.linear
    found = frozen_channels(find_groups(model))
    assert [count for _, count in found.reasons] == [TRAINED[name]]  # the output's, and no other channel
    assert abs(half(model) - 0.5) <= WITHIN
    holds(model, 1.0 if "imagenet" in name else PIXELS)


def half(model: Any) -> float:
    """Share of the MACs that is left when half was asked for, counted in the cut network itself."""
    free = [group for group in find_groups(model) if not group.frozen]
    found = for_share(prices.macs(walk(model), free), free, 0.5, Rounding(8))
    cut = remove(model, {group.id: range(group.size - found.widths[group.id]) for group in free})
    return cost(cut).macs / cost(model).macs


def holds(model: Any, scale: float) -> None:
    """The law on a deep network. Few channels go, so that images still make a difference at its end."""
    removals, inputs = random_removals(model, 0, most=0.3), images(model, scale=scale)
    cut, masked = remove(model, removals), outputs(mask(model, removals), inputs)
    assert cut.count_params() < 0.9 * model.count_params()
    assert np.ptp(masked[0], axis=0).max() > 100 * TOLERANCE * np.abs(masked[0]).max()
    assert difference(masked, outputs(cut, inputs)) < TOLERANCE
