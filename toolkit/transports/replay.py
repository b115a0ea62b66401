"""A session written down, and a device that answers from what was written: for tests, demos, and a board long returned.

A recording is a folder: `recording.json` (of which device, when, by which version), `calls.jsonl` (each call with what
came of it, in order) and `files/` (what was fetched, by SHA-256). Paths of the work folder and of pushed files stand
there as `<folder>` and `<their SHA-256>`, hosts and serial numbers as the device's name. A call is answered by the next
recorded one of the same content; one that was not recorded is an error, never a guess.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from toolkit import errors
from toolkit.core import Completed, Session
from toolkit.digest import file_sha256
from toolkit.errors import EdgekitError, InputError
from toolkit.schema import Component
from toolkit.transports.remote import suffix

ABOUT, CALLS, FILES = "recording.json", "calls.jsonl", "files"
SCHEMA = 1
FOLDER = "/replayed"  # what the work folder is called when there is none


class Replay(Component):
    """A recorded session in a device's place: its numbers are those of the recording, and called emulated."""

    needs_host: ClassVar[bool] = True

    host: Annotated[str, Field(min_length=1)]
    """The folder of the recording."""
    python: str = ""
    """Unused: what it was is in the recording."""

    def open(self) -> ReplayedSession:
        """Read the recording."""
        return ReplayedSession(Path(self.host))


class RecordedSession:
    """Another session, with every call and its answer written to a new folder."""

    def __init__(self, session: Session, folder: Path, *, device: str, place: str = "") -> None:
        if (folder / ABOUT).exists() or (folder.exists() and any(folder.iterdir())):
            raise InputError(str(folder), "is there already and not empty", "record to a new folder")
        self._session, self._out = session, folder
        self._place, self._device = place, device
        self._names: dict[str, str] = {}
        recorded = datetime.now(UTC).isoformat(timespec="seconds")
        about = json.dumps({"schema": SCHEMA, "device": device, "recorded": recorded}, indent=1)
        try:
            (folder / FILES).mkdir(parents=True)
            (folder / ABOUT).write_text(about)
            self._calls = (folder / CALLS).open("w", encoding="utf-8")
        except OSError as error:
            raise InputError(str(folder), f"cannot be made: {error.strerror}", "record to another folder") from None

    def push(self, path: Path) -> str:
        """Send a file; the recording has its hash alone."""
        remote = self._session.push(path)
        self._names[remote] = f"<{file_sha256(path)}>"
        return remote

    def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """One worker job, written down."""
        found: dict[str, Any] = self._written("run", dict(job), lambda: self._session.run(job, timeout_s=timeout_s))
        return found

    def execute(self, command: Sequence[str], *, timeout_s: float) -> Completed:
        """One program, written down."""
        told = self._written(
            "execute", list(command), lambda: asdict(self._session.execute(command, timeout_s=timeout_s))
        )
        return Completed(**told)

    def pull(self, remote: str, path: Path) -> None:
        """Fetch a file, which the recording keeps."""

        def fetch() -> str:
            self._session.pull(remote, path)
            digest = file_sha256(path)
            shutil.copyfile(path, self._out / FILES / digest)
            return digest

        self._written("pull", remote, fetch)

    def alone(self) -> Any:
        """The device for oneself."""
        return self._session.alone()

    def folder(self) -> str:
        """The work folder's path on the device."""
        return self._session.folder()

    def close(self) -> None:
        """Close the session and the recording."""
        self._calls.close()
        self._session.close()

    def _without_place(self, text: str | None) -> str | None:
        """A message without the host or serial number, which stand in no file."""
        if not text or not self._place:
            return text
        return re.sub(rf"(?<![\w@.-]){re.escape(self._place)}(?![\w@-])", self._device, text)

    def _written(self, call: str, asked: Any, work: Callable[[], Any]) -> Any:
        line = {"call": call, "asked": plain(asked, self._session.folder(), self._names)}
        try:
            answer = work()
            line["answer"] = plain(answer, self._session.folder(), self._names)
        except EdgekitError as error:
            told = [self._without_place(text) for text in (error.where, error.problem, error.fix)]
            line["error"] = [type(error).__name__, *plain(told, self._session.folder(), self._names)]
            raise
        finally:
            self._calls.write(f"{json.dumps(line, sort_keys=True)}\n")
            self._calls.flush()
        return answer


class ReplayedSession:
    """The answers of a recording, each once and in order."""

    def __init__(self, folder: Path) -> None:
        self._from = folder
        self._about, self._waiting = _read(folder)
        self._names: dict[str, str] = {}

    def push(self, path: Path) -> str:
        """The file's name in the recording; it goes nowhere."""
        if not path.is_file():
            raise InputError(str(path), "no such file")
        digest = file_sha256(path)
        remote = f"{FOLDER}/{digest[:16]}{suffix(path)}"
        self._names[remote] = f"<{digest}>"
        return remote

    def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """What this job's recorded answer was."""
        found: dict[str, Any] = self._next("run", dict(job))
        return found

    def execute(self, command: Sequence[str], *, timeout_s: float) -> Completed:
        """How this program's recorded run ended."""
        return Completed(**self._next("execute", list(command)))

    def pull(self, remote: str, path: Path) -> None:
        """The file that was fetched from there."""
        digest = self._next("pull", remote)
        kept = self._from / FILES / str(digest)
        if not kept.is_file() or file_sha256(kept) != digest:
            raise InputError(str(kept), "is not the file that was recorded", "record it again")
        shutil.copyfile(kept, path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else is in a recording."""
        yield

    def folder(self) -> str:
        """A name for the work folder that was."""
        return FOLDER

    def close(self) -> None:
        """Nothing was opened."""

    def _next(self, call: str, asked: Any) -> Any:
        """The next recorded answer to such a call."""
        key = _key(call, plain(asked, FOLDER, self._names))
        if not self._waiting.get(key):
            times = "no more often" if key in self._waiting else "not"
            what = asked.get("kind", call) if isinstance(asked, dict) else call
            device, day = self._about["device"], self._about["recorded"][:10]
            file = asked.get("name") if isinstance(asked, dict) else None  # of a look at what is installed: the runtime
            what = f"{'look at' if what == 'info' else f'{what} of'} {file}" if file else what
            problem = f"this {what} was {times} done when {device} was recorded on {day}"
            raise InputError(str(self._from), problem, "ask for what was recorded, or record it again")
        line = self._waiting[key].pop(0)
        if "error" in line:
            kind, where, problem, fix = line["error"]
            raise getattr(errors, kind)(where, problem, fix)
        return line["answer"]


def recorded_of(folder: Path) -> str:
    """Of which device and when a recording is, in words; InputError for what is none."""
    about, _ = _read(folder)
    return f"replayed from a recording of {about['device']} of {about['recorded'][:10]}"


def plain(value: Any, folder: str, names: Mapping[str, str]) -> Any:
    """A call's content without what differs from one session to the next."""
    if isinstance(value, str):
        for own, name in sorted(names.items(), key=lambda item: -len(item[0])):
            value = value.replace(own, name)
        return value.replace(folder, "<folder>") if folder else value
    if isinstance(value, Mapping):
        return {key: plain(item, folder, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, folder, names) for item in value]
    return value


def _key(call: str, asked: Any) -> str:
    return json.dumps([call, asked], sort_keys=True)


def _read(folder: Path) -> tuple[dict[str, str], dict[str, list[dict[str, Any]]]]:
    """What a recording is of, and its calls by content, in order; InputError for what is none."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in (folder / CALLS).read_text(encoding="utf-8").splitlines()]
        if about["schema"] != SCHEMA:
            raise InputError(str(folder), f"is a recording of schema {about['schema']}", "record it again")
        waiting: dict[str, list[dict[str, Any]]] = {}
        for number, line in enumerate(lines, 1):
            if not _whole(line):
                raise ValueError(f"line {number} of {CALLS}")
            waiting.setdefault(_key(line["call"], line["asked"]), []).append(line)
        return {"device": str(about["device"]), "recorded": str(about["recorded"])}, waiting
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = error.strerror if isinstance(error, OSError) else f"{error}"
        held = sorted(str(path.parent) for path in folder.glob(f"*/{ABOUT}"))
        fix = f"give {' or '.join(held)}" if held else "give a folder that --record made"
        raise InputError(str(folder), f"is no recording: {said}", fix) from None


def _whole(line: Any) -> bool:
    """Whether a line holds a call and what came of it; of errors, one of ours."""
    if not isinstance(line, dict) or not {"call", "asked"} <= line.keys():
        return False
    told = line.get("error")
    if told is None:
        return "answer" in line
    kind = getattr(errors, str(told[0]), None) if isinstance(told, list) and len(told) == 4 else None
    return isinstance(kind, type) and issubclass(kind, EdgekitError)
