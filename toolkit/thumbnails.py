"""Small pictures of the test images whose decision changed, in the run's samples/ beside the answers they come from."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import runs
from toolkit.checks.accuracy import Predictions
from toolkit.checks.changed import Changed, find
from toolkit.errors import InputError
from toolkit.kept import UNREADABLE, Kept
from toolkit.plan import REFERENCE

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.datasets.stream import Split

IMAGES = 12  # where the recipe does not say
SIDE = 96  # pixels of the longer side, at most
EXACT = 48  # up to this side a PNG, that shows each pixel as it is; a JPEG above
QUALITY = 80
DARK = 85  # where no value is larger, all are multiplied: 17 shades of gray, kept as 0 to 16, would be black
LARGEST = 64 * 1024  # bytes of a thumbnail; what is larger is none of ours
FOLDER = "samples/changed"


def keep(run: runs.Run, test: Split, limit: int | None) -> None:
    """Find what the run's files decide otherwise than the original, and keep up to `limit` thumbnails of it."""
    shutil.rmtree(run.folder / FOLDER, ignore_errors=True)
    limit = IMAGES if limit is None else limit
    kept = Kept(run.folder, run.manifest)
    original = _answers(kept, REFERENCE, "", len(test))
    if original is None:
        return
    places = dict.fromkeys((m.subject, m.device) for m in run.manifest.measurements if m.device)
    files = {record.name for record in run.manifest.artifacts}
    asked = (_answers(kept, name, device, len(test)) for name, device in places if name in files)
    found = find(original, [answers for answers in asked if answers], test, limit=limit)
    run.update(changed=_pictured(run.folder, found, test))


def read(folder: Path, manifest: runs.Manifest) -> dict[str, bytes]:
    """The thumbnails of a run by their path: those that are there and are what the manifest says."""
    found: dict[str, bytes] = {}
    for image in manifest.changed.images if manifest.changed else ():
        path = folder / image.thumbnail
        if not image.thumbnail.startswith(f"{FOLDER}/") or ".." in path.parts or not path.is_file():
            continue
        if path.stat().st_size <= LARGEST:
            content = path.read_bytes()
            found |= {image.thumbnail: content} if sha256(content).hexdigest() == image.sha256 else {}
    return found


def _answers(kept: Kept, subject: str, device: str, images: int) -> Predictions | None:
    """What the run kept of a model's answers, its first output; None where that is gone, damaged or of other images."""
    try:
        found = kept.predictions(subject, device)
    except UNREADABLE:
        return None
    return found if len(found.outputs) == images else None


def _pictured(folder: Path, found: Changed, test: Split) -> Changed:
    if not found.images:
        return found
    try:
        pixels = [test.shown(image.place) for image in found.images]
    except InputError as error:
        return replace(found, left_out=f"no thumbnails: {error.problem}")
    brightest = max(int(each.max(initial=0)) for each in pixels)
    brighter = 255 // brightest if 0 < brightest <= DARK else 1
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    kept = []
    for image, each in zip(found.images, pixels, strict=True):
        suffix, content = thumbnail(each * each.dtype.type(brighter))
        path = f"{FOLDER}/{image.place:06d}.{suffix}"
        runs.write_atomically(folder / path, content)
        kept.append(replace(image, thumbnail=path, sha256=sha256(content).hexdigest()))
    return replace(found, images=tuple(kept), brighter=brighter)


def thumbnail(pixels: Array) -> tuple[str, bytes]:
    """Suffix and bytes of a small picture of uint8 pixels, height x width x 1 or 3, without any metadata."""
    from PIL import Image

    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    exact = max(picture.size) <= EXACT
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    if exact:
        picture.save(file, "PNG", optimize=True)
    else:
        picture.save(file, "JPEG", quality=QUALITY)
    return ("png" if exact else "jpg"), file.getvalue()
