"""Intervals against published examples, independent solvers and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from toolkit.engine import statistics as st
from toolkit.engine.statistics import Limits, Paired


def test_paired_counts_each_combination() -> None:
    table = Paired.of([1, 1, 1, 0, 0], [1, 0, 0, 1, 0])
    assert table == Paired(1, 2, 1, 1)
    assert table.drop == pytest.approx(0.2)


def test_paired_refuses_results_of_other_length() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        Paired.of([1, 0], [1])


@pytest.mark.parametrize("successes, total", [(81, 263), (15, 148), (1, 29), (0, 20), (29, 29)])
def test_wilson_equals_scipy_and_newcombe_1998_table_1(successes: int, total: int) -> None:
    limits = st.wilson(successes, total, 0.95)
    other = stats.binomtest(successes, total).proportion_ci(0.95, method="wilson")
    assert (limits.low, limits.high) == pytest.approx((other.low, other.high), abs=1e-12)


def test_wilson_gives_published_limits() -> None:
    """Newcombe 1998 (Statistics in Medicine 17:857), Table I: 81/263 gives 0.2553 to 0.3662."""
    limits = st.wilson(81, 263, 0.95)
    assert (limits.low, limits.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(
    "table, low, high",
    [
        # airway hyper-responsiveness (Bentur 2009) as worked by Fagerland, Lydersen & Laake 2014
        (Paired(1, 1, 7, 12), -0.507, -0.026),
        # worked example of Newcombe 1998: nobody fails both, so phi is negative and left as it is
        (Paired(36, 12, 2, 0), 0.0569, 0.3404),
    ],
)
def test_newcombe_gives_published_limits(table: Paired, low: float, high: float) -> None:
    limits = st.newcombe_paired(table, 0.95)
    assert (float(limits.low), float(limits.high)) == pytest.approx((low, high), abs=6e-4)


def test_newcombe_equals_hand_working_with_corrected_phi() -> None:
    """Table 14, 5, 0, 22 (n = 41): ad - bc = 308, less n/2 = 287.5; phi = 287.5 / sqrt(19 * 22 * 14 * 27)."""
    first, second = st.wilson(19, 41, 0.95), st.wilson(14, 41, 0.95)
    down1, up1 = 19 / 41 - first.low, first.high - 19 / 41
    down2, up2 = 14 / 41 - second.low, second.high - 14 / 41
    phi = 287.5 / np.sqrt(19 * 22 * 14 * 27)
    limits = st.newcombe_paired(Paired(14, 5, 0, 22), 0.95)
    assert limits.low == pytest.approx(5 / 41 - np.sqrt(down1**2 - 2 * phi * down1 * up2 + up2**2))
    assert limits.high == pytest.approx(5 / 41 + np.sqrt(up1**2 - 2 * phi * up1 * down2 + down2**2))


def test_tango_gives_published_limits() -> None:
    """Bentur 2009 as worked by Fagerland, Lydersen & Laake 2014: -0.517 to -0.026."""
    limits = st.tango_paired(Paired(1, 1, 7, 12), 0.95)
    assert (float(limits.low), float(limits.high)) == pytest.approx((-0.517, -0.026), abs=6e-4)


@pytest.mark.parametrize("b, c, total", [(1, 7, 21), (12, 2, 50), (30, 11, 2000), (5, 0, 300)])
def test_tango_equals_root_of_a_score_with_numerically_fitted_nuisance(b: int, c: int, total: int) -> None:
    """Independent: the nuisance share by maximum likelihood, the ends by root finding (scipy)."""

    def score(drop: float) -> float:
        def loss(share: float) -> float:
            cells = ((b, share + drop), (c, share), (total - b - c, 1 - 2 * share - drop))
            return -sum(count * np.log(max(p, 1e-300)) for count, p in cells if count)

        floor = max(0.0, -drop)
        share = optimize.minimize_scalar(
            loss, bounds=(floor, (1 - drop) / 2), method="bounded", options={"xatol": 1e-13}
        ).x
        return float((b - c - total * drop) / np.sqrt(total * (2 * share + drop * (1 - drop))))

    limits, z, estimate = st.tango_paired(Paired(0, b, c, total - b - c), 0.95), 1.959963984540054, (b - c) / total
    high = optimize.brentq(lambda drop: score(drop) + z, estimate, 0.999)
    low = optimize.brentq(lambda drop: score(drop) - z, -0.999, estimate)
    assert (float(limits.low), float(limits.high)) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize("method", [st.newcombe_paired, st.tango_paired, st.paired_interval])
@pytest.mark.parametrize("cells", [(80, 5, 2, 13), (100, 0, 0, 0), (0, 0, 0, 9), (50, 0, 7, 3), (3, 9, 0, 0)])
def test_paired_limits_turn_over_when_the_models_are_swapped(method: object, cells: tuple[int, ...]) -> None:
    a, b, c, d = cells
    limits, turned = method(Paired(a, b, c, d), 0.95), method(Paired(a, c, b, d), 0.95)  # type: ignore[operator]
    assert (limits.low, limits.high) == pytest.approx((-turned.high, -turned.low), abs=1e-9)
    assert limits.low <= Paired(*cells).drop <= limits.high
    assert -1 <= limits.low <= limits.high <= 1


def test_paired_interval_narrows_and_widens_as_it_should() -> None:
    def width(scale: int, confidence: float) -> float:
        limits = st.paired_interval(Paired(80 * scale, 5 * scale, 2 * scale, 13 * scale), confidence)
        return float(limits.high - limits.low)

    assert width(1, 0.95) > width(4, 0.95) > width(16, 0.95)
    assert width(4, 0.99) > width(4, 0.95)
    assert width(400, 0.95) / width(1600, 0.95) == pytest.approx(2, rel=0.02)  # 1 / sqrt(n)


def test_paired_interval_of_equal_models_is_not_certain() -> None:
    """No image changed sides among 1,000: a loss up to z**2 / (n + z**2) is still possible (Tango, closed form)."""
    limits = st.tango_paired(Paired(900, 0, 0, 100), 0.95)
    assert limits.high == pytest.approx(3.8414588 / 1003.8414588, rel=1e-5)


SETTINGS = [
    (images, right, gained, margin, confidence)
    for images in (200, 1000, 8000)
    for right, gained in ((0.6, 0.0), (0.88, 0.005), (0.9, 0.02), (0.97, 0.0))
    for margin in (0.01, 0.02)
    for confidence in (0.95, 0.99)
]


@pytest.mark.parametrize("images, right, gained, margin, confidence", SETTINGS)
def test_wrong_verdicts_stay_below_the_level_when_the_true_drop_is_the_margin(
    images: int, right: float, gained: float, margin: float, confidence: float
) -> None:
    """One-sided level (1 - confidence) / 2 for PASS and for FAIL; 30,000 models, three standard errors allowed."""
    level, models = (1 - confidence) / 2, 30_000
    lost = gained + margin
    shares = [right - lost, lost, gained, 1 - right - gained]
    rng = np.random.default_rng(1)
    tables, weight = np.unique(rng.multinomial(images, shares, models), axis=0, return_counts=True)
    limits = st.paired_interval(Paired(*tables.T), confidence)
    allowed = level + 3 * np.sqrt(level / models)
    assert weight[limits.high <= margin].sum() / models <= allowed
    assert weight[limits.low > margin].sum() / models <= allowed


def test_inconclusive_becomes_rarer_with_more_images() -> None:
    rng, rates = np.random.default_rng(2), []
    for images in (300, 3000, 30_000):
        tables = rng.multinomial(images, [0.87, 0.02, 0.018, 0.092], 2000).T  # true drop 0.2 points, budget 1
        rates.append(float(np.mean(st.paired_interval(Paired(*tables), 0.95).high > 0.01)))
    assert rates[0] > 0.7 > rates[1] > rates[2]
    assert rates[2] < 0.001


@pytest.mark.parametrize("images, limit", [(200, 0.95), (1000, 0.98), (431, 0.9)])
def test_wilson_pass_stays_near_the_level_when_the_true_share_is_the_limit(images: int, limit: float) -> None:
    counts = np.arange(images + 1)
    passed = counts[st.wilson(counts, images, 0.95).low >= limit]
    assert stats.binom.sf(passed.min() - 1, images, limit) <= 0.025 * 1.1


def test_bootstrap_equals_scipy_bca() -> None:
    values = np.random.default_rng(3).exponential(size=120) - 0.8
    ours = st.bootstrap_mean(values, 0.95, seed=1, resamples=20_000)
    other = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(4))
    low, high = other.confidence_interval
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.01)


def test_bootstrap_is_the_same_for_a_seed_and_turns_over_with_the_sign() -> None:
    values = np.random.default_rng(5).normal(0.1, 1, 80)
    assert st.bootstrap_mean(values, 0.9, seed=7) == st.bootstrap_mean(values, 0.9, seed=7)
    one, two = st.bootstrap_mean(values, 0.9, seed=7), st.bootstrap_mean(-values, 0.9, seed=7)
    assert (one.low, one.high) == pytest.approx((-two.high, -two.low), abs=1e-9)


def test_bootstrap_of_one_value_has_no_width() -> None:
    assert st.bootstrap_mean([0.5] * 9, 0.95, seed=0) == Limits(0.5, 0.5)


@pytest.mark.parametrize(
    "low, high, outcome",
    [(-0.01, 0.01, "PASS"), (0.0, 0.011, "INCONCLUSIVE"), (0.01, 0.02, "INCONCLUSIVE"), (0.0101, 0.2, "FAIL")],
)
def test_non_inferiority_asks_the_worst_end(low: float, high: float, outcome: str) -> None:
    assert st.non_inferiority(Limits(low, high), 0.01) == outcome


@pytest.mark.parametrize("low, high, outcome", [(0.9, 0.95, "PASS"), (0.8, 0.95, "INCONCLUSIVE"), (0.8, 0.89, "FAIL")])
def test_at_least_asks_the_lower_end(low: float, high: float, outcome: str) -> None:
    assert st.at_least(Limits(low, high), 0.9) == outcome


def test_bonferroni_divides_the_error() -> None:
    assert st.bonferroni(0.95, 1) == pytest.approx(0.95)
    assert st.bonferroni(0.95, 3) == pytest.approx(0.983333, abs=1e-6)
    with pytest.raises(ValueError, match="at least 1"):
        st.bonferroni(0.95, 0)


@pytest.mark.parametrize("cells, margin", [((176, 4, 2, 18), 0.03), ((170, 12, 2, 16), 0.02)])
def test_images_needed_is_where_the_verdict_turns(cells: tuple[int, ...], margin: float) -> None:
    needed = st.images_needed(Paired(*cells), margin, 0.95)
    assert needed is not None
    outcomes = []
    for images in (needed * 0.94, needed * 1.01):
        table = Paired(*(cell * images / 200 for cell in cells))
        outcomes.append(st.non_inferiority(st.paired_interval(table, 0.95), margin))
    assert outcomes[0] == "INCONCLUSIVE"
    assert outcomes[1] in {"PASS", "FAIL"}


def test_images_needed_is_none_at_the_margin_and_the_total_when_decided() -> None:
    assert st.images_needed(Paired(176, 4, 2, 18), 0.01, 0.95) is None
    assert st.images_needed(Paired(900, 0, 50, 50), 0.01, 0.95) == 1000


def test_images_needed_share_matches_the_normal_approximation() -> None:
    """0.98 against 0.97 needs about (z / 0.01)**2 * p (1 - p) images."""
    needed = st.images_needed_share(196, 200, 0.97, confidence=0.95)
    assert needed == pytest.approx((1.96 / 0.01) ** 2 * 0.97 * 0.03, rel=0.1)
    assert st.images_needed_share(194, 200, 0.97, confidence=0.95) is None


# ---------------------------------------------------------------- several classes


def test_worst_of_holds_the_largest_drop_as_often_as_stated() -> None:
    """Five classes of 60 images, all losing 5 points but one that loses 15."""
    rng, runs = np.random.default_rng(0), 600
    shares = [[0.85, 0.06, 0.01, 0.08]] * 4 + [[0.75, 0.16, 0.01, 0.08]]
    below = above = 0
    for _ in range(runs):
        tables = Paired(*np.array([rng.multinomial(60, share) for share in shares], float).T)
        limits = st.worst_of(tables, 0.9)
        below, above = below + (limits.high <= 0.15), above + (limits.low > 0.15)
    assert below / runs <= 0.05
    assert above / runs <= 0.05


def test_worst_of_takes_the_largest_of_each_end() -> None:
    tables = Paired(np.array([90.0, 5.0]), np.array([6.0, 1.0]), np.array([0.0, 0.0]), np.array([4.0, 1.0]))
    each = st.paired_interval(tables, st.bonferroni(0.95, 2))
    limits = st.worst_of(tables, 0.95)
    assert (limits.low, limits.high) == (max(each.low), max(each.high))


def test_images_needed_grow_with_the_square_of_the_width() -> None:
    assert st.images_needed_wide(0.0, Limits(-0.02, 0.02), 0.01, 100) == 400
    assert st.images_needed_wide(0.05, Limits(0.0, 0.1), 0.03, 100) == 625
    assert st.images_needed_wide(0.01, Limits(0.0, 0.02), 0.01, 100) is None
