"""What a report says of speed: findings and what shows them, layers, and that nothing stands out where nothing does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit import runs
from toolkit.checks.speed import NO_GAIN, ONE_LAYER, WEIGHTS_ALONE, Finding, Speed, SpeedLayer
from toolkit.report import speed as section
from toolkit.report.html import render
from toolkit.report.text import summary_lines
from toolkit.report.view import View
from toolkit.runs import Manifest

HOSTILE = '<script>alert("x")</script>'
ISLAND = Finding(
    "float island", "2 operators compute in float", "replace EXP", "measured", "a profile", ("a", "b"), 3, share=0.67
)


def speed(name: str, *found: Finding) -> Speed:
    layers = (SpeedLayer("conv", "CONV_2D", 0.5, 0.25, 0.125, "XNNPACK", "memory"), SpeedLayer("copy", "Copy", 0.01))
    return Speed(name, "ab", "phone", "litert", "xnnpack", 2, found, layers, 30, "its profiler", "a roofline")


def page(sample: Manifest, *found: Speed) -> str:
    return str(section.speed(View(replace(sample, speeds=found))))


def test_finding_is_shown_with_its_share_and_what_shows_it(sample: Manifest) -> None:
    text = page(sample, speed("m.tflite", ISLAND))
    for part in ("2 operators compute in float", "67%", "Replace EXP", "measured", "a profile", "a, b and 1 more"):
        assert part in text, part
    assert "m.tflite</b> on phone (litert, xnnpack, 2 threads)" in text


def test_layers_stand_measured_beside_estimated(sample: Manifest) -> None:
    text = page(sample, speed("m.tflite"))
    for part in (
        "50.0%",
        "25.0%",
        "12.5%",
        "1.0%",
        "XNNPACK",
        "memory",
        "Measured: its profiler. Estimated: a roofline.",
    ):
        assert part in text, part
    assert "28 more layers" in text


def test_file_without_findings_says_that_nothing_stands_out(sample: Manifest) -> None:
    assert "Nothing stands out in a on phone, b on phone." in page(sample, speed("a"), speed("b"))
    assert "Nothing was looked for" in page(sample)


def test_estimates_are_marked_and_whole_files_have_no_share(sample: Manifest) -> None:
    estimated = replace(ISLAND, share=None, estimated=0.3, shown_by="estimated")
    whole = replace(ISLAND, share=None, whole=True, layers=(), count=0)
    text = page(sample, speed("m", estimated, whole))
    assert "30%<small>estimated</small>" in text and "whole file" in text


def test_terminal_has_the_three_strongest(sample: Manifest) -> None:
    found = [speed(f"m{i}", replace(ISLAND, share=i / 10)) for i in range(1, 6)]
    shown = [line for line in summary_lines(replace(sample, speeds=tuple(found))) if line.startswith("speed: ")]
    assert [line.split()[1] for line in shown] == ["m5", "m4", "m3", "2"]
    assert shown[0] == "speed: m5 on phone: 2 operators compute in float (50% of the time). Replace EXP"
    assert shown[3] == "speed: 2 more, in the report"
    slow = replace(ISLAND, rule=NO_GAIN, text="it takes 2 ms", whole=True, share=None)
    (line,) = section.lines(View(replace(sample, speeds=(speed("m", slow, ISLAND),))))
    assert line == "speed: m on phone: it takes 2 ms; 2 operators compute in float (67% of the time). Replace EXP"
    assert not [line for line in summary_lines(replace(sample, speeds=())) if line.startswith("speed: ")]


def test_terminal_is_not_told_what_is_so_of_sound_files(sample: Manifest) -> None:
    """The original's own files, one large layer, weights that are only stored smaller: news where nothing was won."""
    layer = replace(ISLAND, rule=ONE_LAYER)
    slow = replace(ISLAND, rule=NO_GAIN, text="it takes 2 ms", whole=True, share=None)
    own = [item.name for item in sample.artifacts if item.variant == "original"]
    quiet = (*(speed(name, ISLAND) for name in own), speed("m", layer, replace(layer, rule=WEIGHTS_ALONE)))
    assert own and section.lines(View(replace(sample, speeds=quiet))) == []
    first, second = section.lines(View(replace(sample, speeds=(speed("n", ISLAND), speed("m", slow, layer)))))
    assert first == "speed: m on phone: it takes 2 ms; 2 operators compute in float (67% of the time). Replace EXP"
    assert second.startswith("speed: n on phone: ")


def test_file_that_has_changed_since_is_left_out(sample: Manifest) -> None:
    first = sample.artifacts[0]
    now, before = (replace(speed(first.name, ISLAND), sha256=digest) for digest in (first.sha256, "other"))
    assert section.lines(View(replace(sample, speeds=(now, before)))) == section.lines(
        View(replace(sample, speeds=(now,)))
    )
    assert "Nothing was looked for" in page(sample, before)


@pytest.mark.parametrize("field", ["text", "advice", "evidence"])
def test_names_of_files_and_layers_cannot_write_the_page(sample: Manifest, field: str) -> None:
    evil = replace(ISLAND, layers=(HOSTILE,), **{field: HOSTILE})  # type: ignore[arg-type]
    layer = SpeedLayer(HOSTILE, HOSTILE, 0.5, by=HOSTILE, limit=HOSTILE)
    told = replace(speed(HOSTILE, evil), layers=(layer,), device=HOSTILE, how=HOSTILE)
    text = render(replace(sample, speeds=(told,)))
    assert HOSTILE not in text and "&lt;script&gt;alert" in text
    line = section.lines(View(replace(sample, speeds=(replace(told, artifact="a\nb\x1b[31m"),))))
    assert summary_lines(replace(sample, speeds=(replace(told, artifact="a\nb\x1b[31m"),))) and len(line) == 1


def test_manifest_keeps_it_and_an_older_one_has_none(
    sample: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / "manifest.json").write_bytes(runs.dump(replace(sample, speeds=(speed("m", ISLAND),))))
    assert runs.read(folder).speeds == (speed("m", ISLAND),)
    older = runs.dump(replace(sample, speeds=())).replace(b' "speeds": [],\n', b"")
    assert b"speeds" not in older
    (folder / "manifest.json").write_bytes(older)
    assert runs.read(folder).speeds == ()
