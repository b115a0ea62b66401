"""Writes reports: the page of one run, or of several side by side, from what the run directories hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit import equivalence, runs, thumbnails
from toolkit.errors import InputError, UnavailableError


def write_report(directory: Path, out: Path | None = None, *, images: bool = True) -> Path:
    """Write the report of a run from its manifest and its thumbnails, or without these; the path written."""
    from toolkit.report.html import render

    manifest = equivalence.completed(directory, runs.read(directory))
    folder = directory if directory.is_dir() else directory.parent
    path = out or folder / "report.html"
    shown = thumbnails.read(folder, manifest) if images else None
    return write_text(path, render(manifest, shown))


def markdown(directories: Sequence[Path]) -> str:
    """A run's summary; of several runs, each one's, then what changed against the first."""
    from toolkit.compare import compare
    from toolkit.compare import markdown as changes
    from toolkit.report.escaped import cut
    from toolkit.report.markdown import summary

    manifests = [runs.read(each) for each in directories]
    parts = [summary(each) for each in manifests]
    parts += [changes(compare(manifests[0], each)) for each in manifests[1:]]
    return cut("\n".join(parts), more="`edgekit report` without --markdown writes the whole page.")


def write_several(directories: Sequence[Path], out: Path | None = None) -> Path:
    """Write one page that has several runs side by side, changes against the first; the path written."""
    from toolkit.report.several import render

    manifests = [runs.read(each) for each in directories]
    path = out or Path("report.html")
    return write_text(path, render(manifests, [each.name for each in directories]))


def write_text(path: Path, text: str) -> Path:
    """The text in a file; the path."""
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(str(path), "is a folder" if path.is_dir() else "its folder is not there", "name a file")
    runs.write_atomically(path, text.encode("utf-8", "replace"))
    return path


def show(path: Path) -> None:
    """Open a page in the browser that this machine has; UnavailableError where it has none."""
    import webbrowser

    if not webbrowser.open(path.absolute().as_uri()):
        raise UnavailableError(str(path), "no browser could be started", "open the file yourself, or set BROWSER")
