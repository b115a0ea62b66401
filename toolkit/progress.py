"""Progress on stderr: a live line where a person watches, plain lines where a log is kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from toolkit.core import Progress


@contextmanager
def shown() -> Iterator[Callable[[Progress], None]]:
    """A function that shows a Progress. Steps of whole stages stay as lines; what goes on inside one is overwritten."""
    if sys.stderr.isatty():
        with _live() as emit:
            yield emit
    else:
        yield _plain


def _plain(progress: Progress) -> None:
    if progress.fraction is None:
        click.echo(progress.text, err=True)


@contextmanager
def _live() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("starting", total=None)

        def emit(progress: Progress) -> None:
            if progress.fraction is None:
                console.print(progress.text, highlight=False, markup=False)
                bars.update(task, description=progress.text.strip(), total=None)
            else:
                bars.update(task, description=progress.text.strip(), total=1.0, completed=progress.fraction)

        yield emit
