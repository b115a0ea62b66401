"""What docs/devices.md and factors.py say of the published latencies is what the shipped profiles give."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from toolkit.devices import load_device, shipped
from toolkit.estimates import published
from toolkit.estimates.architectures import MODELS
from toolkit.estimates.factors import SHARES
from toolkit.estimates.published import Predicted

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "devices.md"


@pytest.fixture(scope="module")
def rows() -> tuple[Predicted, ...]:
    return published.left_out(published.quoted())


def test_every_published_latency_is_of_a_network_whose_layers_are_known() -> None:
    profiles = [load_device(name) for name in shipped("devices")]
    unknown = [(profile.name, item.model) for profile in profiles for item in profile.published]
    assert [pair for pair in unknown if pair[1] not in MODELS] == []


def test_shares_are_those_that_the_shipped_profiles_give() -> None:
    assert published.shares(published.quoted()) == SHARES, "run benchmarks/estimates.py --write"


@pytest.mark.slow  # some forty fits
def test_table_of_the_docs_is_that_of_the_shipped_profiles(rows: tuple[Predicted, ...]) -> None:
    strangers = published.left_out(published.quoted(), devices=True)
    table = "\n".join((published.summary(rows, strangers), "", *published.table(rows)))
    assert table in DOCS.read_text(encoding="utf-8"), "run benchmarks/estimates.py --write"


@pytest.mark.slow
def test_left_out_latencies_are_mostly_near_their_estimates_and_within_their_ranges(
    rows: tuple[Predicted, ...],
) -> None:
    """The claims of the docs, held loosely: half within 1.5 x, four of five within their range."""
    ratios = sorted(max(row.ratio, 1 / row.ratio) for row in rows)
    assert ratios[len(ratios) // 2] < 1.5
    assert Counter(row.within for row in rows)[True] >= 0.8 * len(rows)
