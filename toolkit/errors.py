"""The errors Edgekit raises on purpose, one class per exit code.

    EdgekitError
    ├── GateError           exit 1   a gate or a smoke test failed, so that what was asked for was not done
    ├── InputError          exit 2   a recipe, option, model file or dataset is wrong
    │   └── UnsupportedError         ... or asks for what a pass, exporter, runtime or device cannot do
    └── UnavailableError    exit 3   the environment: a missing package, an unreachable device, a full disk
        └── StageError               ... a stage's process that crashed or was killed; `--resume` takes the run up again

Each message is one line: `where: what is wrong. Fix: what to do.`  Any other exception that reaches
the command line is a bug and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar


class EdgekitError(Exception):
    """Base of every error Edgekit raises on purpose.

    Args:
        where: file, `file:line: key`, option or layer the message is about.
        problem: what is wrong, and what was got.
        fix: what to do about it, without a final full stop.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, where: str, problem: str, fix: str | None = None) -> None:
        self.where, self.problem, self.fix = where, problem, fix
        text = _sentence(f"{where}: {problem}")
        super().__init__(f"{text} Fix: {_sentence(fix)}" if fix else text)

    def __reduce__(self) -> tuple[type[EdgekitError], tuple[str, str, str | None]]:
        return type(self), (self.where, self.problem, self.fix)


class GateError(EdgekitError):
    """A gate or a smoke test failed, so that what was asked for was not done."""

    exit_code: ClassVar[int] = 1


class InputError(EdgekitError):
    """What the user gave cannot be used as it is."""

    exit_code: ClassVar[int] = 2


class UnsupportedError(InputError):
    """A request that would have to be bent to be carried out, and is refused instead."""


class UnavailableError(EdgekitError):
    """The environment lacks something: a package, a device, disk space."""

    exit_code: ClassVar[int] = 3


class StageError(UnavailableError):
    """A stage's process ended without a result."""


def _sentence(text: str) -> str:
    return text if text.endswith("?") else text.rstrip(".") + "."
