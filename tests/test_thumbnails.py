"""Thumbnails in a run directory: made, kept, read back, and refused where they are not what the manifest says."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit import reporting, runs, thumbnails
from toolkit.checks.changed import Changed
from toolkit.checks.details import Details
from toolkit.core import Measurement, Preprocessing, Records
from toolkit.datasets.stream import Split
from toolkit.report.html import render

IMAGES = 6


def _split(pixels: Any) -> Split:
    records = Records(
        source="random pixels",
        ids=tuple(f"image-{place}" for place in range(len(pixels))),
        labels=np.zeros(len(pixels), np.int64),
        subsets=("",) * len(pixels),
        classes=("cat", "dog"),
        read=lambda index: pixels[index],
        content=lambda index: pixels[index].tobytes(),
    )
    return Split("test", records, range(len(pixels)), Preprocessing(scale=(1 / 255,)))


def _pixels(side: int, high: int = 256, channels: int = 3) -> Any:
    return np.random.default_rng(0).integers(0, high, (IMAGES, side, side, channels)).astype(np.uint8)


@pytest.fixture
def run(tmp_path: Path) -> runs.Run:
    """The original is right everywhere; phone.tflite is wrong on images 1 and 4."""
    found = runs.Run.create(tmp_path / "run", runs.Manifest("r", "done", "", {}, 0, {}, {}), b"")
    right = np.tile(np.array([[2.0, 0.0]], np.float32), (IMAGES, 1))
    wrong = right.copy()
    wrong[[1, 4]] = [[0.0, 1.0], [0.0, 3.0]]
    samples = found.folder / "samples"
    for name, outputs in (("original", right), ("phone.tflite@pi", wrong)):
        np.savez(samples / f"{name}.answers.npz", **{"scores": outputs, "example ids": np.array(["x"] * IMAGES)})
    record = runs.ArtifactRecord("phone.tflite", "phone", "s", "a", "tflite", "int8", 1, "00", (), ())
    found.update(
        artifacts=(record,),
        classes=("cat", "dog"),
        details={"original": Details("logits")},
        measurements=(Measurement("phone.tflite", "top1", 0.5, "", "measured", "pi"),),
    )
    return found


def _changed(run: runs.Run) -> Changed:
    assert run.manifest.changed is not None
    return run.manifest.changed


def test_thumbnails_are_kept_and_come_back(run: runs.Run) -> None:
    pixels = _pixels(20)
    thumbnails.keep(run, _split(pixels), None)
    images = _changed(run).images
    assert [(image.name, image.thumbnail) for image in images] == [
        ("image-4", "samples/changed/000004.png"),
        ("image-1", "samples/changed/000001.png"),
    ]
    again = runs.read(run.folder)
    assert again.changed == run.manifest.changed
    found = thumbnails.read(run.folder, again)
    from PIL import Image

    assert (np.asarray(Image.open(io.BytesIO(found["samples/changed/000004.png"]))) == pixels[4]).all()


def test_large_images_become_small_jpegs_without_metadata(run: runs.Run) -> None:
    from PIL import Image

    thumbnails.keep(run, _split(_pixels(400)), 1)
    ((path, content),) = thumbnails.read(run.folder, run.manifest).items()
    picture = Image.open(io.BytesIO(content))
    assert (path, picture.format, picture.size) == ("samples/changed/000004.jpg", "JPEG", (96, 96))
    assert not picture.getexif()
    assert len(content) < 16_000  # noise is the worst that a JPEG can meet


def test_dark_values_are_shown_brighter(run: runs.Run) -> None:
    from PIL import Image

    pixels = _pixels(8, high=17, channels=1)
    pixels[4, 0, 0, 0] = 16
    thumbnails.keep(run, _split(pixels), 1)
    assert _changed(run).brighter == 15
    (content,) = thumbnails.read(run.folder, run.manifest).values()
    assert (np.asarray(Image.open(io.BytesIO(content))) == 15 * pixels[4]).all()  # gray as RGB, as the model takes it


def test_no_images_are_kept_where_none_are_asked_for(run: runs.Run) -> None:
    thumbnails.keep(run, _split(_pixels(8)), 2)
    assert (run.folder / "samples" / "changed").is_dir()
    thumbnails.keep(run, _split(_pixels(8)), 0)
    assert not (run.folder / "samples" / "changed").exists()
    assert _changed(run).images == ()
    assert _changed(run).tallies[0].changed == 2
    assert "Images are left out, as the recipe" in render(run.manifest, {})


def test_float_images_have_no_thumbnails_and_it_is_said(run: runs.Run) -> None:
    thumbnails.keep(run, _split(_pixels(8).astype(np.float32)), 3)
    assert [image.thumbnail for image in _changed(run).images] == ["", ""]
    page = render(run.manifest, thumbnails.read(run.folder, run.manifest))
    assert "No thumbnails: images are float arrays" in page
    assert "<img" not in page


@pytest.mark.parametrize("left", [0, 40])
def test_damaged_answers_are_left_out(run: runs.Run, left: int) -> None:
    file = run.folder / "samples" / "phone.tflite@pi.answers.npz"
    file.write_bytes(file.read_bytes()[:left])
    thumbnails.keep(run, _split(_pixels(20)), None)
    assert _changed(run).images == () == _changed(run).tallies


def test_page_holds_the_pictures_and_leaves_them_out_on_request(run: runs.Run) -> None:
    thumbnails.keep(run, _split(_pixels(8)), None)
    page = reporting.write_report(run.folder).read_text(encoding="utf-8")
    assert page.count('<img src="data:image/png;base64,') == 2
    assert 'alt="Test image image-4, labelled cat"' in page
    without = reporting.write_report(run.folder, images=False).read_text(encoding="utf-8")
    assert "<img" not in without
    assert "Pictures are left out of this page." in without
    assert "image-4" in without  # the decisions stay


def test_other_files_are_not_taken_for_thumbnails(run: runs.Run) -> None:
    thumbnails.keep(run, _split(_pixels(8)), None)
    first, second = _changed(run).images
    (run.folder / first.thumbnail).write_bytes(b"something else")
    secret = run.folder.parent / "secret.png"
    secret.write_bytes(b"secret")
    outside = replace(second, thumbnail="samples/changed/../../../secret.png", sha256=second.sha256)
    run.update(changed=replace(_changed(run), images=(first, outside)))
    assert thumbnails.read(run.folder, run.manifest) == {}
    assert "<img" not in reporting.write_report(run.folder).read_text(encoding="utf-8")
