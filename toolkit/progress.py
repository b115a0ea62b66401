"""Progress on stderr: a live line where a person watches, plain lines where a log is kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from toolkit.core import Progress


@contextmanager
def shown() -> Iterator[Callable[[Progress], None]]:
    """A function that shows a Progress: what is to be kept as a line, the rest overwritten or not at all."""
    if sys.stderr.isatty():
        with _live() as emit:
            yield emit
    else:
        yield _plain


def _plain(progress: Progress) -> None:
    if progress.keep:
        click.echo(progress.text, err=True)


@contextmanager
def _live() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("starting", total=None)

        def emit(progress: Progress) -> None:
            if progress.keep:
                console.print(progress.text, highlight=False, markup=False)
            known = progress.fraction is not None
            bars.update(
                task, description=escape(progress.text), total=1.0 if known else None, completed=progress.fraction
            )

        yield emit
