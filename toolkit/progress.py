"""Progress on stderr: live bars where a person watches, plain lines where a log is kept, warnings alone where asked.

    ━━━━━━━━━━━━━━━━━━━━  3/9   0:04:10            02-distill
    ━━━━━━━━━━━━━━━━━━━━  42%   0:01:05  1:30 left  distill: epoch 5 of 12, loss 0.3121

The first bar counts the parts of the whole, the others show what goes on now (on each device that is at work), with
the time that is left at the pace measured since it began.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from toolkit.core import Progress
from toolkit.parts import Beside, Emit, Part, warns

if TYPE_CHECKING:
    from rich.console import Console

QUIET = "edgekit.quiet"  # in a click context's meta
EVERY_S = 60.0  # a log gets a sign of life so often: CI systems end what says nothing for ten minutes
SETTLED = 0.02  # of the work must be done before its pace says anything
BAR, WIDEST = 20, 10  # columns of a bar; rows of devices at most


@contextmanager
def shown() -> Iterator[Emit]:
    """A function that shows a Progress as the command was asked to: --quiet, --json, or by where stderr goes."""
    context = click.get_current_context(silent=True)
    meta, parameters = (context.meta, context.params) if context else ({}, {})
    if meta.get(QUIET):
        yield _warnings
    elif parameters.get("as_json") or not _watched():
        yield Plain()
    else:
        from rich.console import Console

        with live(Console(stderr=True)) as emit:
            yield emit


def _watched() -> bool:
    """Whether stderr is a terminal that can draw."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def _warnings(progress: Progress) -> None:
    if warns(progress):
        click.echo(progress.text, err=True)


class Plain:
    """Lines that are worth keeping; of what takes long also where it is, once a minute."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock, self._said = clock, clock()

    def __call__(self, progress: Progress) -> None:
        if progress.keep:
            self._say(progress.text)
        elif self._clock() - self._said >= EVERY_S:
            share = "" if progress.fraction is None else f" ({progress.fraction:.0%})"
            self._say(f"{progress.text}{share}")

    def _say(self, text: str) -> None:
        click.echo(text, err=True)
        self._said = self._clock()


class Ends:
    """When a piece of work will be done, by the pace since its first fraction; one that starts over counts anew."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, float] | None = None  # time, fraction
        self._last = 0.0
        self._end: float | None = None

    def heard(self, fraction: float | None) -> bool:
        """Take note of where the work is; whether something else has begun."""
        now = self._clock()
        begun = fraction is None or self._first is None or fraction < self._last
        if fraction is None:
            self._first = self._end = None
        elif begun:
            self._first, self._end = (now, fraction), None
        elif self._first and fraction - self._first[1] >= SETTLED:
            began, before = self._first
            self._end = now + (now - began) * (1 - fraction) / (fraction - before)
        self._last = fraction or 0.0
        return begun

    @property
    def left(self) -> float | None:
        """Seconds from now, 0 where it is late; None while the pace is not known."""
        return None if self._end is None else max(0.0, self._end - self._clock())


@contextmanager
def live(console: Console) -> Iterator[Emit]:
    """Bars on a terminal."""
    from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.table import Column
    from rich.text import Text

    class Left(ProgressColumn):
        """The time that is left; nothing where the text says it."""

        def render(self, task: Any) -> Text:
            ends: Ends | None = task.fields.get("ends")
            seconds = None if ends is None or task.description.endswith(" left") else ends.left
            return Text("" if seconds is None else f"{_clock(seconds)} left")

    words = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1))
    place = TextColumn("{task.fields[place]}", markup=False)
    columns = (BarColumn(bar_width=BAR), place, TimeElapsedColumn(), Left(), words)
    with Bars(*columns, console=console, transient=True, expand=True) as bars:
        yield _Rows(bars, console)


class _Rows:
    """The bars that are there: one for the whole where it has parts, one for each thing that goes on."""

    def __init__(self, bars: Any, console: Console) -> None:
        self._bars, self._console = bars, console
        self._whole: Any = None
        self._rows: dict[str, tuple[Any, Ends]] = {}
        self._row("", "starting")

    def __call__(self, progress: Progress) -> None:
        if progress.keep:
            self._console.print(progress.text, highlight=False, markup=False)
        if isinstance(progress, Part):
            self._part(progress)
            return
        if warns(progress):  # what went on goes on
            return
        device = progress.device if isinstance(progress, Beside) else ""
        text = f"{device}: {progress.text.strip()}" if device else progress.text.strip()
        row, ends = self._rows.get(device) or self._row(device, text)
        begun = ends.heard(progress.fraction)
        if begun:
            self._bars.reset(row)
        known, share = progress.fraction is not None, progress.fraction or 0.0
        self._bars.update(
            row, description=text, total=1.0 if known else None, completed=share, place=f"{share:.0%}" if known else ""
        )

    def _part(self, part: Part) -> None:
        """The bar of the whole moves on, and what went on before has ended."""
        fields = {"total": part.total, "completed": part.number - 1, "place": f"{part.number}/{part.total}"}
        text = part.text.partition("] ")[2]
        for row, _ in self._rows.values():
            self._bars.remove_task(row)
        self._rows = {}
        if self._whole is None:
            self._whole = self._bars.add_task(text, **fields)
        else:
            self._bars.update(self._whole, description=text, **fields)

    def _row(self, device: str, text: str) -> tuple[Any, Ends]:
        """A new one; of very many devices the oldest goes."""
        if len(self._rows) >= WIDEST:
            oldest = next(iter(self._rows))
            self._bars.remove_task(self._rows.pop(oldest)[0])
        ends = Ends()
        self._rows[device] = (self._bars.add_task(text, total=None, place="", ends=ends), ends)
        return self._rows[device]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
