"""The bootstrap against scikit-learn and SciPy, and the level of its intervals, simulated."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from toolkit.engine import bootstrap
from toolkit.engine.bootstrap import Bootstrap

RNG = np.random.default_rng(0)


def precision(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> float:
    """Mean average precision by scikit-learn, with weights."""
    labels = [place for place in range(truth.shape[1]) if (truth[:, place] * weights).any()]
    return float(
        np.mean(
            [
                average_precision_score(truth[:, at], scores[:, at], sample_weight=np.maximum(weights, 0))
                for at in labels
            ]
        )
    )


@pytest.mark.parametrize("levels", [3, 1000])
def test_precision_of_resamples_equals_scikit_learn(levels: int) -> None:
    """Few levels make many ties; weights are counts, many of them 0."""
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, (40, 3)).astype(float)
    truth = rng.random((40, 3)) < 0.3
    weights = rng.multinomial(40, np.full(40, 1 / 40), 20).T.astype(np.float32)
    for label in range(3):
        found = bootstrap._Ranked.of(scores[:, label], truth[:, label]).precision(weights)
        for column in range(20):
            kept = np.repeat(np.arange(40), weights[:, column].astype(int))
            expected = average_precision_score(truth[kept, label], scores[kept, label])
            assert found[column] == pytest.approx(expected, abs=1e-6)


def test_precision_drop_is_the_difference_of_scikit_learns() -> None:
    truth = RNG.random((60, 4)) < 0.3
    truth[:, 2] = False  # a label no image has
    one, two = RNG.random((2, 60, 4))
    found = bootstrap.of_precision_drop(one, two, truth, seed=0, resamples=50)
    every = np.ones(60)
    assert found.estimate == pytest.approx(precision(one, truth, every) - precision(two, truth, every), abs=1e-6)
    assert found.examples == 60
    assert found.positives == pytest.approx(truth[:, [0, 1, 3]].sum() / 3)


def test_equal_scores_never_differ() -> None:
    scores, truth = RNG.random((40, 2)), RNG.random((40, 2)) < 0.5
    limits = bootstrap.of_precision_drop(scores, scores, truth, seed=0, resamples=50).limits(0.95)
    assert (limits.low, limits.high) == (0, 0)


def test_limits_of_a_mean_equal_scipys() -> None:
    sample = RNG.exponential(size=50)
    limits = replace(bootstrap.of_mean(sample, seed=0, resamples=20_000), deviations=None).limits(0.95)
    other = stats.bootstrap((sample,), np.mean, n_resamples=20_000, method="BCa", random_state=1).confidence_interval
    assert (limits.low, limits.high) == pytest.approx((other.low, other.high), abs=0.02 * sample.std())


def test_limits_of_a_growth_equal_scipys() -> None:
    before = RNG.exponential(size=60)
    after = before * RNG.uniform(0.9, 1.4, 60)
    found = bootstrap.of_growth(before, after, seed=0, resamples=20_000)
    other = stats.bootstrap(
        (before, after),
        lambda a, b, axis: b.mean(axis=axis) / a.mean(axis=axis) - 1,
        paired=True,
        n_resamples=20_000,
        method="BCa",
        random_state=1,
    ).confidence_interval
    limits = replace(found, deviations=None).limits(0.95)
    assert found.estimate == pytest.approx(after.mean() / before.mean() - 1)
    assert (limits.low, limits.high) == pytest.approx((other.low, other.high), abs=0.004)


def test_bootstrap_t_of_a_mean_equals_hand_working_and_the_outer_end_holds() -> None:
    """Upper end m - t(0.025) s / sqrt(n), t of 20,000 other resamples."""
    sample, rng = RNG.exponential(size=50), np.random.default_rng(5)
    found = bootstrap.of_mean(sample, seed=0, resamples=20_000)
    rows = sample[rng.integers(0, 50, (20_000, 50))]
    t = (rows.mean(axis=1) - sample.mean()) / (rows.std(axis=1, ddof=1) / math.sqrt(50))
    high = sample.mean() - np.quantile(t, 0.025) * sample.std(ddof=1) / math.sqrt(50)
    assert found.limits(0.95).high == pytest.approx(high, abs=0.03 * sample.std())
    alone = replace(found, deviations=None).limits(0.95)
    assert found.limits(0.95).high > alone.high
    assert found.limits(0.95).low <= alone.low


def test_error_of_a_growth_equals_the_jackknifes() -> None:
    before = RNG.exponential(size=200) + 0.5
    after = before * RNG.uniform(0.9, 1.4, 200)
    left = (after.sum() - after) / (before.sum() - before)
    jackknife = math.sqrt(199 / 200 * np.square(left - left.mean()).sum())
    assert bootstrap.of_growth(before, after, seed=0, resamples=200).error == pytest.approx(jackknife, rel=0.02)


def test_growth_from_nothing_is_infinite_and_from_nothing_to_nothing_none() -> None:
    before = np.array([0.0] * 39 + [1.0])
    found = bootstrap.of_growth(before, np.ones(40), seed=0, resamples=200)
    assert found.estimate == 39
    assert found.limits(0.95).high == math.inf
    assert bootstrap.of_growth(before, before, seed=0, resamples=200).limits(0.95).high == 0


def test_same_seed_gives_the_same_limits_and_more_confidence_wider_ones() -> None:
    sample = RNG.normal(size=40)
    one, two = (bootstrap.of_mean(sample, seed=3, resamples=500) for _ in range(2))
    assert np.array_equal(one.draws, two.draws)
    narrow, wide = one.limits(0.8), one.limits(0.99)
    assert wide.low < narrow.low < one.estimate < narrow.high < wide.high


def test_few_positives_widen_the_interval() -> None:
    draws = np.sort(RNG.normal(size=5000))
    widths = []
    for positives in (3, 30, math.inf):
        limits = Bootstrap(0.0, draws, 100, positives=positives).limits(0.9)
        widths.append(limits.high - limits.low)
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] == pytest.approx(2 * 1.645, abs=0.15)


def test_limits_that_the_draws_do_not_hold_lie_as_far_out_as_a_normal_tail() -> None:
    """Of 2,000 draws ten lie beyond 2.576 deviations; at 4 the largest of them would be the limit otherwise."""
    draws = np.sort(stats.norm.ppf((np.arange(2000) + 0.5) / 2000))
    found = Bootstrap(0.0, draws, 100, acceleration=0.0)
    for z in (1.0, 2.5, 3.0, 4.0, 5.0):
        limits = found.limits(1 - 2 * stats.norm.sf(z))
        assert (limits.low, limits.high) == pytest.approx((-z, z), rel=0.02)
    lopsided = replace(found, draws=np.where(draws < 0, draws, 2 * draws), estimate=0.0)
    limits = lopsided.limits(1 - 2 * stats.norm.sf(4.0))
    assert (limits.low, limits.high) == pytest.approx((-4.0, 8.0), rel=0.02)


# ---------------------------------------------------------------- levels, simulated

CONFIDENCE = 0.9  # each end wrong 5% of the time
REPETITIONS = 400
MANY = 2000  # of what is quickly computed
NOISE_OF_MANY = 3 * math.sqrt(0.05 * 0.95 / MANY)
NOISE = 3 * math.sqrt(0.05 * 0.95 / REPETITIONS)  # three standard errors of the share counted


@pytest.mark.parametrize("images, share", [(30, 0.3), (100, 0.3), (100, 0.1)])
def test_wrong_verdicts_on_a_precision_drop_are_as_rare_as_stated(images: int, share: float) -> None:
    """The truth is the drop on very many images; the upper end below it would be a wrong PASS at that margin."""
    rng = np.random.default_rng(1)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        truth = rng.random((count, 2)) < share
        scores = truth + rng.normal(size=truth.shape)
        return scores, scores + 0.6 * rng.normal(size=truth.shape), truth

    one, two, truth = draw(200_000)
    every = np.ones(len(truth))
    true = precision(one, truth, every) - precision(two, truth, every)
    below = above = 0
    for repetition in range(REPETITIONS):
        limits = bootstrap.of_precision_drop(*draw(images), seed=repetition, resamples=300).limits(CONFIDENCE)
        below, above = below + (limits.high <= true), above + (limits.low > true)
    assert below / REPETITIONS <= 0.05 + NOISE
    assert above / REPETITIONS <= 0.05 + NOISE


@pytest.mark.parametrize("images", [30, 100])
def test_wrong_verdicts_on_a_growing_error_are_as_rare_as_stated(images: int) -> None:
    """Errors |z| and |z + w / 2| of normal z, w: the mean grows by sqrt(1.25) - 1."""
    rng, true = np.random.default_rng(2), math.sqrt(1.25) - 1
    below = above = 0
    for repetition in range(MANY):
        z, w = rng.normal(size=(2, images))
        found = bootstrap.of_growth(np.abs(z), np.abs(z + w / 2), seed=repetition, resamples=400)
        limits = found.limits(CONFIDENCE)
        below, above = below + (limits.high <= true), above + (limits.low > true)
    assert 0.01 <= below / MANY <= 0.05 + NOISE_OF_MANY  # nor is it far too wide
    assert 0.01 <= above / MANY <= 0.05 + NOISE_OF_MANY


def test_limits_far_out_are_wrong_as_seldom_as_stated_of_few_draws() -> None:
    """200 draws end at a tail of 1/200; one of 1/4,000 is asked for. The least draw was wrong 15 times as often."""
    rng, stated, count = np.random.default_rng(4), 1 / 4000, 4000
    wrong = 0
    for repetition in range(count):
        found = bootstrap.of_mean(rng.normal(size=60), seed=repetition, resamples=200)
        wrong += found.limits(1 - 2 * stated).high < 0
    assert wrong <= stats.poisson.ppf(0.999, stated * count)


@pytest.mark.parametrize("images", [40, 100])
def test_wrong_verdicts_on_a_skewed_mean_are_as_rare_as_stated(images: int) -> None:
    """Cosines 1 - 0.02 e of exponential e: their mean is 0.98."""
    rng = np.random.default_rng(3)
    below = above = 0
    for repetition in range(MANY):
        values = 1 - 0.02 * rng.exponential(size=images)
        limits = bootstrap.of_mean(values, seed=repetition, resamples=400).limits(CONFIDENCE)
        below, above = below + (limits.high < 0.98), above + (limits.low >= 0.98)
    assert 0.01 <= below / MANY <= 0.05 + NOISE_OF_MANY
    assert 0.01 <= above / MANY <= 0.05 + NOISE_OF_MANY
