from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from toolkit.engine.least_squares import Sums


def rows(seed: int, count: int = 40) -> tuple[Any, Any, Any]:
    """Features, what is left and targets of two regressions beside each other."""
    rng = np.random.default_rng(seed)
    return rng.normal(1.0, 1.0, (2, count, 3)), rng.normal(2.0, 1.0, (2, count, 4)), rng.normal(size=(2, count, 4))


def sums(seed: int = 0) -> Sums:
    features, left, target = rows(seed)
    return Sums.of(features[:, :15], left[:, :15], target[:, :15]) + Sums.of(
        features[:, 15:], left[:, 15:], target[:, 15:]
    )


@pytest.mark.parametrize("intercept", [True, False])
def test_solve_agrees_with_scikit_learn(intercept: bool) -> None:
    features, left, _ = rows(0)
    change, offset = sums().solve(0.3, intercept=intercept)
    for k in range(2):
        values = features[k] - features[k].mean(0) if intercept else features[k]
        size = np.sqrt(np.square(values).sum(0))  # the ridge is relative to each feature's energy
        theirs = Ridge(alpha=0.3, fit_intercept=intercept).fit(features[k] / size, left[k])
        assert np.allclose(change[k], (theirs.coef_ / size).T)
        assert np.allclose(offset[k], theirs.intercept_)


@pytest.mark.parametrize("intercept", [True, False])
def test_error_is_that_of_the_rows(intercept: bool) -> None:
    features, left, target = rows(0)
    change, offset = sums().solve(0.1, intercept=intercept)
    rest = left - features @ change - offset[:, None]
    assert np.isclose(sums().error(change, offset), np.square(rest).sum())
    assert np.isclose(sums().spread, np.square(target - target.mean(1, keepdims=True)).sum())


def test_solve_gives_zero_for_features_that_are_always_zero() -> None:
    features, left, target = rows(0)
    features[:, :, 1] = 0
    change, _ = Sums.of(features, left, target).solve(1e-8, intercept=True)
    assert np.allclose(change[:, 1], 0) and np.abs(change[:, 0]).max() > 0
    nothing, offset = Sums.of(0 * features, left, target).solve(1e-8, intercept=True)
    assert np.allclose(nothing, 0) and np.allclose(offset, left.mean(1))
