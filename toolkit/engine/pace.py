"""How far a training is, in words: `epoch 3 of 10, 42%, loss 0.312, selection accuracy 88.1%, 1:23 left`."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic


class Pace:
    """Counts from when `begin` is called. judged: what the score is; an accuracy is shown in percent."""

    def __init__(self, epochs: int, *, judged: str = "accuracy", clock: Callable[[], float] = monotonic) -> None:
        self._epochs, self._judged, self._clock = epochs, judged, clock
        self._score = ""
        self.begin(0)

    def begin(self, done: int) -> None:
        """Start the clock; `done` epochs were done before."""
        self._started, self._before = self._clock(), done / self._epochs

    def step(self, number: int, share: float, loss: float) -> str:
        """Within epoch `number`, of which `share` is done; the score is that of the epoch before."""
        left = self._left(self.fraction(number, share))
        return f"epoch {number} of {self._epochs}, {share:.0%}, loss {loss:.4f}{self._score}{left}"

    def epoch(self, number: int, loss: float, score: float | None) -> str:
        """At the end of epoch `number`."""
        if score is not None:
            shown = f"{score:.1%}" if self._judged == "accuracy" else f"{score:.4g}"
            self._score = f", selection {self._judged} {shown}"
        left = "" if number == self._epochs else self._left(self.fraction(number, 1.0))
        return f"epoch {number} of {self._epochs}, loss {loss:.4f}{self._score}{left}"

    def fraction(self, number: int, share: float) -> float:
        """Of the whole training, 0..1."""
        return (number - 1 + share) / self._epochs

    def _left(self, fraction: float) -> str:
        """The time that is left if it goes on at the mean speed since `begin`."""
        done = fraction - self._before
        if done <= 0:
            return ""
        seconds = round((self._clock() - self._started) * (1 - fraction) / done)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return f", {hours}:{minutes:02}:{seconds:02} left" if hours else f", {minutes}:{seconds:02} left"
