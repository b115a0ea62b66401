"""Ranges: numbers worked out by hand, laws, and agreement with numpy on what histograms keep."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from toolkit.engine.ranges import BINS, Collected, Collector, resolve
from toolkit.quantization import RangeMethod

Values = NDArray[np.float32]
METHODS = get_args(RangeMethod)


def seen(*batches: Values) -> Collected:
    collector = Collector()
    for batch in batches:
        collector.add(batch)
    return collector.collected()


def gaussian(count: int = 20_000, seed: int = 0) -> Values:
    return np.random.default_rng(seed).normal(size=(count, 1)).astype(np.float32)


# ---------------------------------------------------------------- what is collected


def test_histogram_has_bins_at_multiples_of_a_power_of_two() -> None:
    """-1..3 spans 4; the least 2**k for which 4096 bins reach from one end to the other is 2**-9, and not 2**-10."""
    found = seen(np.array([[-1.0, 0.0, 0.0, 3.0]], np.float32))
    assert (found.width, found.start, found.values, found.zeros) == (2**-9, -512, 4, 2)
    assert found.histogram is not None
    places = np.flatnonzero(found.histogram)
    assert places.tolist() == [0, 512, 2048]
    assert found.histogram[places].tolist() == [1, 2, 1]
    assert found.edges[places].tolist() == [-1.0, 0.0, 3.0]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(2.0**-60, 2.0**60, width=32).map(lambda x: -x if x > 1 else x), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
def test_collected_does_not_depend_on_order_or_batches(values: list[float], random: object) -> None:
    together = seen(np.array([values], np.float32))
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    apart = seen(*(np.array([[value]], np.float32) for value in shuffled))
    assert (apart.low, apart.high, apart.start, apart.width) == (
        together.low,
        together.high,
        together.start,
        together.width,
    )
    assert apart.histogram is not None
    assert together.histogram is not None
    np.testing.assert_array_equal(apart.histogram, together.histogram)
    assert apart.histogram.sum() == len(values)
    assert apart.edges[0] <= apart.low
    assert apart.high < apart.edges[-1]


def test_what_is_kept_does_not_grow_with_what_is_seen() -> None:
    collector = Collector()
    for seed in range(20):
        collector.add(gaussian(2000, seed) * 10.0**seed)
    found = collector.collected()
    assert found.histogram is not None
    assert len(found.histogram) == BINS
    assert found.histogram.sum() == found.values == 40_000


def test_moving_average_forgets_by_a_twentieth_an_image() -> None:
    """Images with ends (-1, 2), (0, 4), (-2, 1): 0.95 * (0.95 * -1 + 0.05 * 0) + 0.05 * -2 = -1.0025, and so on."""
    images = np.array([[-1, 2], [0, 4], [-2, 1]], np.float32)
    low, high = resolve(seen(images), "moving_average")
    assert (low, high) == pytest.approx((-1.0025, 0.95 * (0.95 * 2 + 0.05 * 4) + 0.05))
    assert resolve(seen(images[:1], images[1:]), "moving_average") == (low, high)
    assert resolve(seen(images[::-1]), "moving_average") != (low, high)


def test_ends_alone_are_the_same_ends() -> None:
    values = gaussian(100).reshape(10, 10)
    ends = Collector(histogram=False)
    ends.add_ends(values.min(axis=1), values.max(axis=1))
    for method in ("minmax", "moving_average"):
        assert resolve(ends.collected(), method) == resolve(seen(values), method)
    with pytest.raises(ValueError, match="no histogram"):
        resolve(ends.collected(), "mse")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_have_no_range(bad: float) -> None:
    found = seen(gaussian(10), np.array([[1.0, bad]], np.float32))
    assert not found.finite
    with pytest.raises(ValueError, match="not finite"):
        resolve(found, "minmax")
    with pytest.raises(ValueError, match="nothing was collected"):
        Collector().collected()


def test_any_float_has_a_bin() -> None:
    """Ends 76 decades apart, and what is too small for the product with 2**-k."""
    found = seen(np.array([[-3e38, -1.2e-38, 0, 1.2e-38, 3e38]], np.float32))
    assert found.histogram is not None
    assert found.histogram.sum() == 5
    assert [resolve(found, method) for method in ("minmax", "mse")] == [(found.low, found.high)] * 2


# ---------------------------------------------------------------- what is chosen


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, -2.5, 1e-20, 6e4])
def test_a_constant_has_the_range_of_itself(method: RangeMethod, value: float) -> None:
    low, high = resolve(seen(np.full((3, 4), value, np.float32)), method)
    assert low == high == np.float32(value)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=2, max_size=50),
    st.sampled_from(METHODS),
    st.floats(50, 100),
)
def test_a_range_lies_within_the_least_and_greatest_value(
    values: list[float], method: RangeMethod, percentile: float
) -> None:
    low, high = resolve(seen(np.array([values], np.float32)), method, percentile)
    assert min(values) <= low <= high <= max(values)


def test_all_of_the_values_is_minmax() -> None:
    found = seen(gaussian())
    assert resolve(found, "percentile", 100) == resolve(found, "minmax")


@pytest.mark.parametrize("percentile", [50, 90, 99, 99.9])
def test_percentile_is_numpys_within_a_bin(percentile: float) -> None:
    values = np.exp(gaussian())
    found = seen(values)
    cut = (100 - percentile) / 2
    expected = np.percentile(values, [cut, 100 - cut])
    assert resolve(found, "percentile", percentile) == pytest.approx(expected, abs=found.width)
    assert found.outside(*resolve(found, "percentile", percentile)) == pytest.approx(1 - percentile / 100, abs=5e-3)


def test_percentile_of_four_values_by_hand() -> None:
    """Half of 0, 1, 2, 3 in bins of 2**-10: a quarter goes at each end, so that 0 and 3 are cut off."""
    found = seen(np.array([[0, 1, 2, 3]], np.float32))
    assert resolve(found, "percentile", 50) == (1.0, 2.0 + found.width)
    assert found.outside(0.5, 2.5) == 0.5


def test_mse_of_an_even_distribution_is_about_minmax() -> None:
    values = np.random.default_rng(0).uniform(-1, 3, (50_000, 1)).astype(np.float32)
    assert resolve(seen(values), "mse") == pytest.approx((-1, 3), abs=0.05)


@pytest.mark.parametrize("bits", [4, 8])
def test_mse_has_the_least_error_of_rounding_and_clipping(bits: int) -> None:
    """Against the error itself of ranges scaled alike, on values with long tails."""
    values = np.random.default_rng(0).laplace(size=50_000).astype(np.float32)

    def error(low: float, high: float) -> float:
        scale = (high - low) / (2**bits - 1)
        zero = np.round(-low / scale)
        steps = np.clip(np.round(values / scale) + zero, 0, 2**bits - 1)
        return float((((steps - zero) * scale - values) ** 2).mean())

    low, high = resolve(seen(values[:, None]), "mse", bits=bits)
    tried = [error(share * values.min(), share * values.max()) for share in np.linspace(0.1, 1, 40)]
    assert error(low, high) <= 1.02 * min(tried)
    assert error(low, high) < 0.9 * tried[-1]


def test_zeros_cost_nothing_so_that_mse_keeps_what_they_leave() -> None:
    """Rounding counts less where most values are 0: the same tails are worth more."""
    tails = np.abs(np.random.default_rng(0).laplace(size=(20_000, 1))).astype(np.float32)
    sparse = np.concatenate([tails, np.zeros((200_000, 1), np.float32)])
    assert resolve(seen(sparse), "mse", bits=4)[1] == resolve(seen(tails), "mse", bits=4)[1]


@pytest.mark.parametrize(("method", "bits"), [("entropy", 8), ("mse", 4)])
def test_one_outlier_of_a_gaussian_is_clipped(method: RangeMethod, bits: int) -> None:
    """In 8 bits mse keeps it: at 60 it costs 55**2 / 20,001 to clip, more than rounding, (64 / 255)**2 / 12."""
    found = seen(np.concatenate([gaussian(), np.array([[20.0]], np.float32)]))
    low, high = resolve(found, method, bits=bits)
    assert high < 10
    assert -5 < low < -2
    assert found.outside(low, high) < 0.02
    assert resolve(seen(gaussian(), np.array([[60.0]], np.float32)), "mse")[1] > 50


def test_entropy_keeps_what_its_levels_hold_exactly() -> None:
    """200 different values fit into 256 levels: nothing is lost by keeping them all."""
    values = np.arange(200, dtype=np.float32)[:, None]
    assert resolve(seen(values), "entropy") == (0.0, 199.0)
    assert resolve(seen(gaussian()), "entropy", bits=16) == resolve(seen(gaussian()), "minmax")


def test_entropy_of_positive_values_keeps_zero_at_its_end() -> None:
    relu = np.maximum(gaussian(), 0)
    low, high = resolve(seen(relu), "entropy")
    assert low == 0
    assert 2.5 < high <= relu.max()


def test_percentile_does_not_cut_what_many_values_share() -> None:
    """One pixel of ten is white: 99 percent reach into them, and the end is theirs."""
    collector = Collector()
    collector.add(np.concatenate([np.linspace(0, 254, 900), np.full(100, 255.0)]).astype(np.float32)[None])
    collected = collector.collected()
    low, high = resolve(collected, "percentile", 99.0)
    assert high == 255.0
    assert collected.outside(low, high) < 0.01
