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
from toolkit.report.view import View
from toolkit.runs import Manifest, dump

VOID = {"meta", "link", "br", "hr", "col", "img"}


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
    empty = ["zeros", "clusters", "metrics"]  # of the sample; every other section is full
    assert found == [*(key for key, _, _ in SECTIONS if key not in empty), "absent"]
    assert found[0] == "verdicts"


def test_sections_with_nothing_to_show_stand_in_one_list_with_the_reason(samples: ModuleType, page: Page) -> None:
    ids = [attributes.get("id") for _, attributes in page.tags]
    assert {"zeros", "clusters", "metrics"} <= set(ids[ids.index("absent") :])
    assert "No file has many zeros in its weights." in page.words
    stopped = Page(render(samples.bare()))
    assert [a["id"] for tag, a in stopped.tags if tag == "section"] == ["verdicts", "again", "absent"]


def test_hostile_sample_fills_every_section_but_metrics(hostile: Manifest) -> None:
    found = [attributes["id"] for tag, attributes in Page(render(hostile)).tags if tag == "section"]
    assert found == [*(key for key, _, _ in SECTIONS if key != "metrics"), "absent"]


def test_page_shows_every_verdict(page: Page, sample: Manifest) -> None:
    for verdict in sample.verdicts:
        assert verdict.reason in page.text
        assert show(verdict.gate, verdict.value) in page.text
    assert page.words.count("INCONCLUSIVE") == 3 + 1 + 1  # board, why, gate; overview, legend
    assert "tiny.tflite fails on accuracy drop; phone.tflite is undecided on accuracy drop" in page.text


def rows_of(page: str, label: str) -> list[list[str]]:
    """Words of each row of a table, cell by cell."""
    body = page.split(f'aria-label="{label}"')[1].split("<tbody>")[1].split("</tbody>", maxsplit=1)[0]
    rows = (re.split(r"</t[dh]>", row)[:-1] for row in body.split("</tr>")[:-1])
    return [[re.sub(r"<[^>]*>", "", cell) for cell in row] for row in rows]


def test_board_has_a_row_for_each_file_and_device_the_worst_first(sample: Manifest) -> None:
    (own,) = (item for item in sample.verdicts if (item.artifact, item.gate) == ("server.onnx", "max_accuracy_drop"))
    elsewhere = replace(own, device="pi", outcome="FAIL", value=0.051, limit=0.05)
    text = render(replace(sample, verdicts=(*sample.verdicts, elsewhere)))
    rows = rows_of(text, "Verdicts by artifact, device and gate")
    assert [row[:2] for row in rows] == [
        ["server.onnx", "pi"],
        ["tiny.tflite", "this-machine"],
        ["phone.tflite", "this-machine"],
        ["server.onnx", "this-machine"],
    ]
    assert rows[0][2:] == ["✕FAIL", "✕FAIL: 5.1\xa0points≤\xa05.0\xa0points", "✓PASS: 49.1\xa0KiB", "–"]
    assert rows[3][2] == "✓PASS"


def test_verdicts_name_what_was_found_inside_a_file_that_failed(sample: Manifest) -> None:
    advice = sample.diagnoses["tiny.tflite"].diagnosis.advice
    first = render(sample).partition('id="wins"')[0]
    assert f'<a href="#diagnosis">Inside tiny.tflite</a>: {advice}.' in first
    passed = tuple(item for item in sample.verdicts if item.outcome == "PASS")
    assert advice not in render(replace(sample, verdicts=passed)).partition('id="wins"')[0]


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


def test_page_with_pictures_holds_them_itself(samples: ModuleType, sample: Manifest) -> None:
    text = render(sample, samples.pictures(sample))
    pictures = [attributes for tag, attributes in Page(text).tags if tag == "img"]
    assert len(pictures) == 4
    for attributes in pictures:
        assert (attributes["src"] or "").startswith("data:image/png;base64,iVBORw0KGgo")
        assert (attributes["alt"] or "").startswith("Test image digit-0")
    assert not re.search(r"https?:|//\w|url\(|@import|srcset", re.sub(r"data:image/png;base64,[^\"]*", "", text))


def test_page_says_what_each_file_decides_of_an_image(page: Page) -> None:
    assert "47 of 360" in page.text
    assert "12 images, from each file in turn" in page.text
    assert "Pictures are shown 15 times as bright as they are." in page.text
    at = page.words.index("digit-0031")
    said = "".join(page.words[at - 14 : at])
    assert said == "label 2original✓right: 2, 97%tiny.tflite✕wrong: 3, 81%phone.tflite✕wrong: 3, 55%"


def test_page_lets_no_name_become_markup(hostile: Manifest) -> None:
    text = render(hostile)
    page = Page(text)
    assert text.count("<script") == 1
    assert "<img" not in text  # what is called so is no picture
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
    counted = {"original": whole, "phone.tflite": lossy}
    page = Page(render(replace(sample, classes=many, per_class=counted, changed=None)))
    assert sum(word.startswith("class-") for word in page.words) == details.MOST_CLASSES
    assert "class-177" in page.words


@pytest.mark.parametrize(("each", "folded"), [(1, True), (4, True), (5, False)])
def test_class_table_is_folded_away_where_a_class_has_few_images(sample: Manifest, each: int, folded: bool) -> None:
    names = ("one", "two", "three")
    counted = {name: tuple({"correct": each, "total": each} for _ in names) for name in ("original", "phone.tflite")}
    drawn = details.classes(View(replace(sample, classes=names, per_class=counted)))
    assert drawn.count("<details") == folded
    assert ("say little of any one class" in drawn) == folded


def test_class_table_of_answers_that_nobody_counted_is_drawn(sample: Manifest) -> None:
    counted = {"phone.tflite": (), "server.onnx": ({"correct": 9, "total": 9},)}
    drawn = details.classes(View(replace(sample, classes=("one",), per_class=counted)))
    assert "9/9" in drawn and "<details" not in drawn


def test_page_tells_every_hash_and_the_whole_command(sample: Manifest) -> None:
    source = replace(sample.stages[0], parameters={"file": "digits-cnn.keras", "sha256": "5eed" * 16})
    called = {"recipe": "a b.toml", "data": "d", "devices": ["pi"], "overrides": ["seed=0"], "allow_code": ["mine"]}
    page = Page(render(replace(sample, stages=(source, *sample.stages[1:]), invocation=called)))
    again = page.words[page.words.index("Do it again") :]
    assert "edgekit run 'a b.toml' --data d --device pi --set seed=0 --allow-code mine" in " ".join(again)
    for digest in ("5eed" * 16, *(item.sha256 for item in sample.artifacts)):
        assert digest in again
    for record in sample.data:
        assert record.fingerprint.removeprefix("sha256:") in again


def test_page_is_small(sample: Manifest) -> None:
    assert len(render(sample).encode()) < 150_000


def test_largest_page_is_under_two_megabytes(samples: ModuleType, sample: Manifest) -> None:
    """A thousand classes, 36 stages of 200 layers, 24 files on three devices, a hundred pictures of noise."""
    names = [f"variant-{place}.tflite" for place in range(24)]
    devices = ("pi", "phone", "jetson")
    artifacts = tuple(replace(sample.artifacts[2], name=name, variant=name[:-7]) for name in names)
    own = [item for item in sample.measurements if item.subject == "phone.tflite"]
    measured = tuple(replace(item, subject=name, device=where) for name in names for where in devices for item in own)
    gates = [item for item in sample.verdicts if item.artifact == "phone.tflite"]
    verdicts = tuple(
        replace(item, artifact=name, device=where) for name in names for where in devices for item in gates
    )
    layers = tuple(
        {"layer": f"block_{n}_expand", "before": "96 channels", "after": "48", "reason": "l1"} for n in range(200)
    )
    stages = tuple(replace(sample.stages[1], name=f"{place:02d}-prune", changes=layers) for place in range(36))
    classes = tuple(f"a class with a name {place}" for place in range(1000))
    counts = tuple({"correct": place % 50, "total": 50} for place in range(1000))
    assert sample.changed
    images = tuple(
        replace(sample.changed.images[0], place=n, thumbnail=f"samples/changed/{n:06d}.png") for n in range(100)
    )
    whole = replace(
        sample,
        artifacts=(*sample.artifacts[:2], *artifacts),
        measurements=(*sample.measurements[:40], *measured),
        verdicts=verdicts,
        stages=(*sample.stages, *stages),
        classes=classes,
        per_class=dict.fromkeys(("original", *names), counts),
        changed=replace(sample.changed, images=images, limit=100),
    )
    picture = samples.PIXEL + bytes(5_000)
    size = len(render(whole, {image.thumbnail: picture for image in images}).encode())
    assert size < 2_000_000
