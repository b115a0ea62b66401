"""Rooflines against numbers worked out by hand, and the fit against laws of the normal distribution."""

from __future__ import annotations

import math

import pytest

from toolkit.estimates.architectures import MODELS, layers_of
from toolkit.estimates.fit import COMPUTE, DEVICE, MODEL, OWN, SETUP, Knowledge, Observation, Place, learn
from toolkit.estimates.workload import Layer
from toolkit.hardware import Processor

CPU = Processor(name="core", cores=4, clock_ghz=2.0, macs_per_cycle={"float32": 4, "int8": 8}, source="made up")
EMPTY = Knowledge(shares={"cpu/convolution/float32": (0.5, 0.1), "cpu/memory": (0.25, 0.1)})


def conv(operations: int, moved: int = 0) -> Layer:
    return Layer("x", "CONV_2D", "convolution", "float32", operations, moved)


def test_layer_takes_its_operations_over_the_share_of_the_peak() -> None:
    # one core: 2 GHz x 4 = 8e9 MACs a second, of which half is reached: 4e6 MACs in 1 ms
    spent = EMPTY.time(Place("board", CPU, 8.0, threads=1), [conv(4_000_000)])
    assert math.exp(spent.log_ms) == pytest.approx(1.0)
    assert spent.layers[0][1] is False


def test_layer_takes_its_bytes_over_the_share_of_the_bandwidth_when_that_is_longer() -> None:
    # 8 GB/s, of which a quarter is reached: 2e6 bytes in 1 ms, against 0.5 ms of computing
    spent = EMPTY.time(Place("board", CPU, 8.0, threads=1), [conv(2_000_000, 2_000_000)])
    assert math.exp(spent.log_ms) == pytest.approx(1.0)
    assert spent.layers[0][1] is True


def test_threads_beyond_the_cores_add_nothing() -> None:
    two, four, nine = (EMPTY.time(Place("board", CPU, None, threads=n), [conv(8_000_000)]).log_ms for n in (2, 4, 9))
    assert two - four == pytest.approx(math.log(2))
    assert four == nine


def test_float16_is_computed_in_float32_where_there_is_no_float16() -> None:
    half = Layer("x", "CONV_2D", "convolution", "float16", 1_000_000, 0)
    place = Place("board", CPU, None)
    assert EMPTY.time(place, [half]).log_ms == EMPTY.time(place, [conv(1_000_000)]).log_ms
    assert Place("mcu", CPU.model_copy(update={"macs_per_cycle": {"int8": 2}}), None).peak("float32") is None


def test_range_before_any_latency_is_that_of_all_factors() -> None:
    spent = EMPTY.time(Place("board", CPU, None), [conv(1_000_000)])
    assert EMPTY.width(spent) == pytest.approx(math.sqrt(0.1**2 + DEVICE**2 + OWN**2 + SETUP**2 + MODEL**2))


def test_one_latency_moves_the_estimate_by_the_share_that_normal_updating_gives() -> None:
    """One layer, one observation: the posterior mean of log time moves by prior variance / (prior variance + noise)."""
    place, layers = Place("board", CPU, None), (conv(32_000_000),)
    before = EMPTY.time(place, layers).log_ms
    learned = learn(EMPTY, [Observation(place, layers, 2 * math.exp(before))])
    prior = 0.1**2 + DEVICE**2 + OWN**2 + SETUP**2
    spent = learned.time(place, layers)
    assert spent.log_ms - before == pytest.approx(math.log(2) * prior / (prior + MODEL**2), rel=1e-4)
    posterior = prior * MODEL**2 / (prior + MODEL**2)
    assert learned.width(spent) == pytest.approx(math.sqrt(posterior + MODEL**2), rel=1e-4)


def test_many_latencies_win_over_the_prior_and_narrow_the_range() -> None:
    place, layers = Place("board", CPU, 8.0), (conv(32_000_000, 100_000),)
    true = 3 * math.exp(EMPTY.time(place, layers).log_ms)
    learned = learn(EMPTY, [Observation(place, layers, true)] * 30)
    spent = learned.time(place, layers)
    assert math.exp(spent.log_ms) == pytest.approx(true, rel=0.02)
    assert learned.width(spent) < 1.1 * MODEL < EMPTY.width(EMPTY.time(place, layers))


def test_latency_of_one_device_tells_less_of_another() -> None:
    here, there = Place("board", CPU, None), Place("other", CPU, None)
    layers = (conv(32_000_000),)
    learned = learn(EMPTY, [Observation(here, layers, 2 * math.exp(EMPTY.time(here, layers).log_ms))])
    moved = [learned.time(place, layers).log_ms - EMPTY.time(place, layers).log_ms for place in (here, there)]
    assert 0 < moved[1] < moved[0]


def test_unknown_kind_has_the_prior_of_all_kinds() -> None:
    assert Knowledge(shares={}).prior(("cpu/dense/int8",)) == (math.log(COMPUTE[0]), COMPUTE[1])


@pytest.mark.parametrize(
    ("model", "million_macs"),
    [  # the papers' own counts; SSD and MLPerf Tiny: counted from the published files
        ("mobilenet_v1_1.0_224", 569),
        ("mobilenet_v2_1.0_224", 300),
        ("resnet50_224", 4089),
        ("resnet8_32", 12.5),
        ("mobilenet_v1_0.25_96", 7.49),
    ],
)
def test_architectures_have_the_macs_of_their_papers(model: str, million_macs: float) -> None:
    assert sum(layer.macs for layer in layers_of(model, "int8")) / 1e6 == pytest.approx(million_macs, rel=0.005)


def test_float_layers_move_four_times_the_bytes_of_int8() -> None:
    for model in MODELS:
        wide, narrow = (sum(layer.bytes for layer in layers_of(model, kind)) for kind in ("float32", "int8"))
        assert wide == 4 * narrow
