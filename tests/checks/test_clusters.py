"""How few values weights have and what they take coded, worked out by hand; and what runtimes make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toolkit import registry
from toolkit.checks.clusters import RULES, coded, measure_clusters, measure_entropy, shared
from toolkit.checks.weights import Weight
from toolkit.core import Artifact, Codebook, Signature
from toolkit.devices import load_device

FILE = Artifact("m", Path("m.tflite"), "tflite", "int8", 1, "", Signature((), ()))


def weight(*rows: list[int], bits: int = 8) -> Weight:
    return Weight(np.array(rows, np.int8), 0, bits)


def test_bound_is_the_entropy_and_the_codebook() -> None:
    """16 values, half of them 0 and a quarter each 1 and 2: 1.5 bits each, 3 bytes; and 3 values of a byte."""
    found = coded([weight([0] * 4 + [1, 1, 2, 2], [0] * 4 + [1, 1, 2, 2])])
    assert (found.stored, found.coded) == (16, 6)


def test_bound_has_a_codebook_for_each_output_channel_where_that_is_less() -> None:
    """One value in the first channel: 1 byte; two in the other as often: 1 bit each, and 2 bytes."""
    assert coded([weight([0] * 8, [1] * 4 + [2] * 4)]).coded == 1 + (8 / 8 + 2)


def test_bound_is_never_more_than_the_weights_take() -> None:
    """Eight different ones: 3 bits each and a codebook as large as they are."""
    assert coded([weight(list(range(8)))]).coded == 8
    assert coded([weight(list(range(8)), bits=4)]).coded == 4


def test_one_value_takes_its_codebook_alone() -> None:
    assert coded([weight([3] * 100)]).coded == 1
    assert coded([]).coded == 0


def test_measurement_says_that_it_is_an_estimated_bound() -> None:
    found = measure_entropy("m", [weight([0] * 8, [1] * 4 + [2] * 4)])
    assert (found.name, found.value, found.unit, found.how["weights_bytes"]) == ("entropy_bytes", 4, "bytes", 16)
    assert "estimated bound" in str(found.how["what"])


def test_values_are_counted_in_each_output_channel_and_in_the_layer() -> None:
    few, many = weight([1, 1, 2, 2], [3, 3, 3, 4]), weight([1, 2, 3, 4])
    found = shared([few, many], 2)
    assert (found.held, found.layers, found.in_channel, found.in_layer) == (1, 2, 2, 4)
    assert found.share == pytest.approx(8 / 12)
    assert shared([few, many], 3).share == pytest.approx(8 / 12)
    assert shared([many], 2).share == 0


def test_channels_with_no_more_weights_than_values_say_nothing() -> None:
    few = weight([1, 2, 3, 4], [5, 6, 7, 8])
    assert shared([few], 4) == shared([], 4)
    assert shared([few, weight([1, 1, 1, 2, 2])], 4).in_layer == 2


def test_channels_lie_along_their_axis() -> None:
    columns = Weight(np.array([[1, 5, 9], [2, 5, 9]]), 1, 8)
    assert [len(np.unique(row)) for row in columns.channels] == [2, 1, 1]


def test_every_runtime_has_a_rule_and_none_is_faster() -> None:
    assert set(RULES) == set(registry.FAMILIES["runtimes"])
    claims = {"conv": Codebook(4), "answer": Codebook(2, "channel")}
    for runtime in (*RULES, "another"):
        found = measure_clusters(
            FILE, shared([weight([1, 2, 1, 2, 1])], 4), claims, load_device("this-machine"), runtime
        )
        assert (found.how["used"], found.how["asked"]) == ("no", "at most 4 values, 2 layers")
        assert found.how["found"] == "2 in each output channel of 1 of 1 layers with more weights there"
    assert found.how["rule"] == "unverified"


def test_accelerator_that_reads_compressed_weights_is_not_said_to_gain_nothing() -> None:
    few = shared([weight([1, 2, 1, 2, 1])], 4)
    for name, used in (("cortex-m55-ethos-u55", "open"), ("cortex-m4", "no")):
        found = measure_clusters(FILE, few, {"conv": Codebook(4)}, load_device(name), "tflite-micro")
        assert found.how["used"] == used
        assert ("Vela" in str(found.how["why"])) == (used == "open")
    wide = measure_clusters(
        replace(FILE, scheme="float32"), few, {"conv": Codebook(4)}, load_device("cortex-m55-ethos-u55"), "tflite-micro"
    )
    assert wide.how["used"] == "no"
