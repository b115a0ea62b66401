"""The page: well-formed, complete, silent on the network, and deaf to hostile names."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from types import ModuleType

import pytest

from toolkit.core import Measurement
from toolkit.report import details
from toolkit.report.html import SECTIONS, render
from toolkit.report.numbers import show
from toolkit.runs import Manifest, dump

VOID = {"meta", "link", "br", "hr", "col"}


class Page(HTMLParser):
    """Checks nesting; keeps text, tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def page(sample: Manifest) -> Page:
    return Page(render(sample))


def test_page_is_the_same_bytes_for_the_same_manifest(samples: ModuleType) -> None:
    assert render(samples.sample()).encode() == render(samples.sample()).encode()


def test_page_is_the_same_after_the_manifest_was_on_disk(sample: Manifest) -> None:
    from pydantic import TypeAdapter

    again = TypeAdapter(Manifest).validate_json(dump(sample))
    assert render(again) == render(sample)


def test_page_shows_sections_in_order_verdicts_first(page: Page) -> None:
    found = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert found == [key for key, _, _ in SECTIONS]
    assert found[0] == "verdicts"


def test_page_shows_every_verdict(page: Page, sample: Manifest) -> None:
    for verdict in sample.verdicts:
        assert verdict.reason in page.text
        assert show(verdict.gate, verdict.value) in page.text
    assert page.words.count("INCONCLUSIVE") == 1 + 1 + 1  # gate, overview, legend
    assert "tiny.tflite fails on accuracy drop; phone.tflite is undecided on accuracy drop" in page.text


def test_page_shows_every_measurement(page: Page, sample: Manifest) -> None:
    for item in sample.measurements:
        assert show(item.name, item.value, item.unit) in page.words
        assert item.subject in page.words


def test_page_shows_layers_curves_data_recipe_and_host(page: Page, sample: Manifest) -> None:
    for words in ("32 channels", "16 channels", "skipped: the output", "selection_loss", "AMD EPYC 9R14"):
        assert words in page.text
    for record in sample.data:
        assert record.fingerprint in page.words
    for artifact in sample.artifacts:
        assert artifact.sha256 in page.words
    assert "edgekit run digits-demo --set seed=0" in page.text
    assert sample.warnings[0] in page.words
    assert 'macs = 0.5; importance = "l1"' in page.text  # and no word of the settings that are not given


def test_page_reaches_for_nothing_outside_itself(sample: Manifest) -> None:
    text = render(sample)
    assert not re.search(r"https?:|//\w|url\(|@import|srcset", text)
    for tag, attributes in Page(text).tags:
        assert tag not in ("img", "iframe", "object", "embed", "base", "form")
        assert not attributes.get("src")
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    policy = next(a["content"] or "" for tag, a in Page(text).tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ")


def test_page_lets_no_name_become_markup(hostile: Manifest) -> None:
    text = render(hostile)
    page = Page(text)
    assert text.count("<script") == 1
    assert "alert('x')" not in text.replace("&lt;script&gt;alert(&#x27;x&#x27;)", "")
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert "\x1b" not in text
    assert "<script>alert('x')</script>" in page.text  # as words


def test_page_of_a_run_that_stopped_says_so(samples: ModuleType) -> None:
    page = Page(render(samples.bare()))
    assert "STOPPED" in page.words
    assert "The run stopped before its end. model.keras: not a Keras file." in page.words
    assert "Nothing was measured." in page.words


def test_page_says_not_measured_instead_of_nan(sample: Manifest) -> None:
    nan = tuple(replace(m, value=float("nan")) if m.name != "size_bytes" else m for m in sample.measurements)
    page = Page(render(replace(sample, measurements=nan)))
    assert "not measured" in page.words
    assert not re.search(r"\bnan\b|\bNone\b", page.text, re.IGNORECASE)


def test_page_survives_infinite_and_lone_numbers(samples: ModuleType) -> None:
    odd = (
        Measurement("original", "top1", 1.0, "", "measured"),
        Measurement("phone.tflite", "latency_p50_ms", float("inf"), "ms", "measured", "pi"),
        Measurement("phone.tflite", "top1", 0.0, "", "emulated", "pi"),
        Measurement("phone.tflite", "latency_p50_ms", 0.0, "ms", "measured", "this-machine"),
    )
    Page(render(replace(samples.sample(), measurements=odd)))


def test_page_marks_what_was_not_measured_on_a_device(sample: Manifest) -> None:
    emulated = tuple(replace(m, source="emulated") if m.name == "latency_p50_ms" else m for m in sample.measurements)
    page = Page(render(replace(sample, measurements=emulated)))
    assert "(not measured on a device)" in page.text
    assert "2.0× faster; emulated" in page.words


def test_page_titles_its_sections_tables_and_charts(page: Page) -> None:
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert all(a["aria-labelledby"] in ids for tag, a in page.tags if tag == "section")
    assert all(a.get("aria-label") or a.get("aria-hidden") for tag, a in page.tags if tag == "svg")
    assert all(a.get("scope") for tag, a in page.tags if tag == "th")
    links = {(a.get("href") or "")[1:] for tag, a in page.tags if tag == "a"}
    assert links <= ids


def test_class_table_keeps_the_most_changed_of_many(sample: Manifest) -> None:
    many = tuple(f"class-{n}" for n in range(200))
    whole = tuple({"correct": 10, "total": 10} for _ in many)
    lossy = tuple({"correct": 0 if n == 177 else 10, "total": 10} for n in range(200))
    page = Page(render(replace(sample, classes=many, per_class={"original": whole, "phone.tflite": lossy})))
    assert sum(word.startswith("class-") for word in page.words) == details.MOST_CLASSES
    assert "class-177" in page.words


def test_page_is_small(sample: Manifest) -> None:
    assert len(render(sample).encode()) < 150_000
