"""Several runs in one page, and summaries in Markdown."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest

from tests.report import browser
from tests.report.test_browser import probed
from tests.report.test_html import Page
from toolkit.report import markdown, several
from toolkit.report.escaped import LONGEST
from toolkit.runs import Manifest


@pytest.fixture(scope="module")
def slower(sample: Manifest) -> Manifest:
    """The same run later: phone.tflite is half as fast, and larger."""
    factor = {"latency_p50_ms": 2.0, "size_bytes": 1.5}

    def changed(item):  # type: ignore[no-untyped-def]
        by = factor.get(item.name, 1.0) if item.subject == "phone.tflite" else 1.0
        around = item.interval and replace(item.interval, low=item.interval.low * by, high=item.interval.high * by)
        return replace(item, value=item.value * by, interval=around)

    return replace(sample, started="2026-11-21", measurements=tuple(map(changed, sample.measurements)))


def test_runs_stand_side_by_side(sample: Manifest, slower: Manifest) -> None:
    page = Page(several.render([sample, slower], ["monday", "tuesday"]))
    assert "2 runs side by side" in page.words
    assert "tuesday: 2 measurements worse, 0 better" in page.text
    at = page.words.index("Latency p50")
    cells = page.words[page.words.index("phone.tflite", at) :]
    assert cells[:6] == [
        *("phone.tflite", "on this-machine", "0.0112\xa0ms", "0.0109 to 0.0116\xa0ms"),
        *("0.0224\xa0ms", "0.0217 to 0.0233\xa0ms"),
    ]
    assert {a.get("id") for tag, a in page.tags if tag == "section"} == {"runs", "charts", "change-2", "numbers"}


def test_times_of_other_hosts_are_neither_drawn_nor_judged(sample: Manifest, slower: Manifest) -> None:
    elsewhere = replace(slower, host={**slower.host, "cpu": "another"})
    page = Page(several.render([sample, elsewhere], ["a", "b"]))
    assert "Latency is not compared: the hosts differ, or are not known." in page.words
    assert "b: 1 measurements worse, 0 better" in page.text  # the size alone
    charts = [a["aria-label"] or "" for tag, a in page.tags if tag == "svg" and a.get("aria-label")]
    assert [label.partition(":")[0] for label in charts] == ["accuracy against size"]


def test_marks_of_every_run_say_whose_they_are(sample: Manifest, slower: Manifest) -> None:
    page = Page(several.render([sample, slower, sample], ["a", "b", "c"]))
    labels = [a["aria-label"] or "" for tag, a in page.tags if a.get("tabindex") and a.get("role") == "img"]
    assert len(labels) == 2 * 3 * len(sample.artifacts)
    assert all(label.count("on the frontier") == 1 for label in labels)
    assert {label.partition(",")[0] for label in labels} == {"Run 1", "Run 2", "Run 3"}


def test_hostile_and_broken_runs_are_words(samples: ModuleType, hostile: Manifest) -> None:
    bare = samples.bare()
    for runs in ([hostile, hostile], [bare, hostile], [bare, bare]):
        text = several.render(runs, [samples.HOSTILE, "b"])
        page = Page(text)
        assert text.count("<script") == 1
        assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
        assert "\x1b" not in text


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_page_of_several_fits_and_is_quiet(tmp_path, sample: Manifest, slower: Manifest, width: int) -> None:  # type: ignore[no-untyped-def]
    found = probed(several.render([sample, slower], ["20261121-234018_digits-demo", "b"]), tmp_path, width)
    assert found["scroll"] <= width
    assert (found["far"], found["requests"]) == ([], [])
    assert found["charts"] == 2


# ---------------------------------------------------------------- Markdown


def test_markdown_says_what_the_terminal_says(sample: Manifest) -> None:
    from toolkit.report.numbers import plain
    from toolkit.report.text import summary_lines

    text = markdown.summary(sample)
    assert text.startswith("### `digits-demo`: ❌ FAIL\n")
    for line in summary_lines(sample):
        if line.startswith(("phone.tflite", "tiny.tflite")) and "%" in line:
            for cell in filter(None, line.split("  ")[1:-1]):
                assert cell.strip() in plain(text)
    assert "edgekit run digits-demo --set seed=0" in text
    for artifact in sample.artifacts:
        assert artifact.sha256 in text


def test_markdown_has_reasons_and_findings_unfolded(sample: Manifest) -> None:
    open_part = markdown.summary(sample).split("<details>")[0]
    (failed,) = (item for item in sample.verdicts if item.outcome == "FAIL")
    assert failed.reason in open_part
    for what in ("equivalence: tiny.tflite", "speed: phone.tflite", "layers: "):
        assert what in open_part.replace("\\", "").replace("`", ""), what


def test_markdown_tables_keep_their_columns(sample: Manifest, hostile: Manifest) -> None:
    for manifest in (sample, hostile):
        widths: list[int] = []
        for line in markdown.summary(manifest).splitlines():
            if line.startswith("|"):
                widths.append(line.count("|"))
            else:
                assert len(set(widths)) <= 1
                widths = []


def test_markdown_lets_no_name_become_markup(hostile: Manifest) -> None:
    text = markdown.summary(hostile)
    outside = "".join(part for place, part in enumerate(text.split("`")) if place % 2 == 0)
    assert "<script" not in outside
    assert "@all" not in outside
    assert "\x1b" not in text


def test_markdown_fits_a_comment(sample: Manifest) -> None:
    many = tuple(replace(item, reason="x" * 90) for item in sample.verdicts) * 100
    text = markdown.summary(replace(sample, verdicts=many))
    assert LONGEST < 60_500
    assert len(text) < 65_536
    assert text.count("<details>") == text.count("</details>")
    assert "Cut short" in text
