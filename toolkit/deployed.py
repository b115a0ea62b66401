"""What is deployed on a device: a folder for each version, and one link that names the current one.

    ROOT/NAME/versions/0003-ab12cd34ef56/   a bundle's files, and deployed.json: which version was current before
    ROOT/NAME/current -> versions/0003-ab12cd34ef56

A version is unpacked beside them, checked and tried there; then the link is replaced by one rename, so that `current`
is at any moment one whole version: rename(2). Needs a POSIX shell, tar and sha256sum there, over any transport.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from toolkit.core import Completed, Session
from toolkit.errors import EdgekitError, InputError, StageError, UnavailableError

RECORD = "deployed.json"
QUICK_S, LONG_S = 120.0, 1800.0  # for looking; for unpacking and hashing on a slow card
VERSION = re.compile(r"(\d{4,})-[0-9a-f]{12}")
SLACK_KIB = 1024  # room beyond the files themselves, for folders and blocks
# $1: root, "" for the home folder's, or where that cannot be written (Android) what adb may write; $2: name.
LOOK = r"""root=$1
if [ -z "$root" ]; then
  root=/data/local/tmp/edgekit
  if [ -n "$HOME" ] && [ "$HOME" != / ] && [ -w "$HOME" ]; then root=$HOME/edgekit; fi
fi
base=$root/$2
printf 'base %s\n' "$base"
if [ -L "$base/current" ]; then printf 'current %s\n' "$(readlink "$base/current")"
elif [ -e "$base/current" ]; then echo blocked; fi
for v in "$base"/versions/*; do [ -d "$v" ] && printf 'version %s\n' "${v##*/}"; done
:
"""
# $1: base; $2: KiB needed. What earlier deployments left half-done goes first.
ROOM = r"""set -e
mkdir -p "$1/versions"
rm -rf "$1"/.incoming.* "$1/.next"
needed=$2
set -- $(df -Pk "$1" | tail -n 1)
case $4 in
  "" | *[!0-9]*) ;;
  *) if [ "$4" -lt "$needed" ]; then echo "full $4"; fi ;;
esac
"""
# $1: archive; $2: folder to make
UNPACK = 'mkdir -- "$2" && tar -xof "$1" -C "$2" && { (cd "$2" && find . -exec sync {} +) 2>/dev/null || sync; }'
# $1: record; $2: what was unpacked; $3: the record's name there; $4: the version's folder, which is not there yet
KEEP = 'cp -- "$1" "$2/$3" && [ ! -e "$4" ] && mv -- "$2" "$4" && rmdir -- "${2%/*}"'
PACK = 'cd -- "$2" && archive=$1 && shift 2 && tar -cf "$archive" -- "$@"'
HASH = 'cd -- "$1" && shift && sha256sum -- "$@"'
# $1: base; $2: version; $3: Python. Replaces a link to a folder by one rename: coreutils' `mv -T` does. Toybox's 0.8.9
# does not, but its `ln -f` makes a link of another name and renames it (seen with strace); else Python's os.replace.
SWITCH = r"""ln -s "versions/$2" "$1/.next" || exit 1
mv -fT "$1/.next" "$1/current" 2>/dev/null ||
{ case "$(ln --help 2>&1)" in *oybox* | *"[-sfnv]"*) ;; *) false ;; esac &&
  ln -sfn "versions/$2" "$1/current" && rm -f "$1/.next"; } ||
{ [ -n "$3" ] && "$3" -c 'import os, sys; os.replace(sys.argv[1], sys.argv[2])' "$1/.next" "$1/current"; } ||
{ rm -f "$1/.next"; exit 1; }
sync "$1" "$1/versions" 2>/dev/null || sync
readlink "$1/current"
"""
# $1: base; the others: folders below it. Never what is current.
DROP = r"""base=$1; shift
for part in "$@"; do [ "$(readlink "$base/current")" = "$part" ] || rm -rf "${base:?}/$part"; done
rm -f "$base/.next"
rmdir "$base/versions" "$base" 2>/dev/null
:
"""


@dataclass(frozen=True)
class State:
    """base: the deployment's folder there. current: version, "" for none. versions: all that are there, in order."""

    base: str
    current: str
    versions: tuple[str, ...]

    def path(self, version: str) -> str:
        """A version's folder."""
        return f"{self.base}/versions/{version}"

    def next(self, archive: str) -> str:
        """What a version of this archive (its sha256) will be called."""
        last = max((int(name.partition("-")[0]) for name in self.versions), default=0)
        return f"{last + 1:04}-{archive[:12]}"


@dataclass(frozen=True)
class Record:
    """deployed.json: how a version came to be. previous: what was current before, "" for nothing."""

    schema: Literal[1]
    version: str
    archive: str
    artifact: str
    sha256: str
    device: str
    deployed: str
    previous: str
    smoke: dict[str, Any] | None
    allowed: tuple[str, ...] = ()


class Deployed:
    """One deployment's folder on a device. where: the device, for messages."""

    def __init__(self, session: Session, where: str, root: str, name: str, python: str) -> None:
        self._session, self._where, self._root, self._name, self._python = session, where, root, name, python

    def look(self) -> State:
        """What is there; changes nothing."""
        found = self._checked(LOOK, self._root, self._name, what="its folder cannot be looked at")
        rows = [line.partition(" ")[::2] for line in found.stdout.splitlines()]
        base = next(value for key, value in rows if key == "base")
        if ("blocked", "") in rows:
            problem = f"{base}/current is no link, so that something else is there"
            raise InputError(self._where, problem, "give --into or --name, or move it away")
        versions = sorted((value for key, value in rows if key == "version" and VERSION.fullmatch(value)), key=_number)
        current = next((value for key, value in rows if key == "current"), "").removeprefix("versions/")
        return State(base, current, tuple(versions))

    def unpack(self, state: State, archive: str, size: int, folder: str) -> str:
        """An archive that lies there already, beside the versions; the folder that it holds."""
        needed = size // 1024 + SLACK_KIB
        found = self._checked(ROOM, state.base, str(needed), what=f"{state.base} cannot be written")
        if found.stdout.startswith("full "):
            problem = f"{state.base} has {found.stdout.split()[1]} KiB free, {needed} are needed"
            raise UnavailableError(self._where, problem, "make room there, or give --into")
        incoming = f"{state.base}/.incoming.{archive.rpartition('/')[2]}"
        self._checked(UNPACK, archive, incoming, what="the bundle cannot be unpacked there", timeout_s=LONG_S)
        return f"{incoming}/{folder}"

    def verify(self, folder: str, files: Mapping[str, str]) -> None:
        """Raise StageError unless these files, name -> sha256, are whole; UnavailableError where one is gone."""
        names = sorted(files)
        found = self._checked(HASH, folder, *names, what=f"files in {folder} cannot be read", timeout_s=LONG_S)
        rows = (line.partition("  ") for line in found.stdout.splitlines())
        there = {name: digest for digest, _, name in rows}
        wrong = [name for name in names if there.get(name) != files[name]]
        if wrong:
            raise StageError(self._where, f"{folder}: {', '.join(wrong)} did not stay whole (sha256 differs)")

    def keep(self, state: State, incoming: str, record: Record) -> None:
        """Make what was unpacked a version, with its record."""
        with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
            file = Path(scratch) / RECORD
            file.write_text(json.dumps(asdict(record), indent=1) + "\n")
            pushed = self._session.push(file)
            target = state.path(record.version)
            self._checked(KEEP, pushed, incoming, RECORD, target, what=f"{target} cannot be written")

    def switch(self, state: State, version: str) -> None:
        """Make a version the current one, in one step."""
        problem = "the link `current` cannot be replaced"
        found = self._checked(SWITCH, state.base, version, self._python, what=problem)
        if found.stdout.strip() != f"versions/{version}":
            raise StageError(self._where, f"{state.base}/current names {found.stdout.strip()!r} after it was replaced")

    def record(self, state: State, version: str) -> Record:
        """How a version came to be; InputError where that is not to be read."""
        path = f"{state.path(version)}/{RECORD}"
        try:
            return TypeAdapter(Record).validate_json(self.read(path))
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"{self._where}: {path}", f"is no record of schema 1: {first['msg']}") from error

    def read(self, path: str) -> bytes:
        """A file of the device."""
        with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
            try:
                self._session.pull(path, Path(scratch) / "file")
                return (Path(scratch) / "file").read_bytes()
            except OSError as error:  # this machine's own, as a device
                raise StageError(self._where, f"{path} cannot be read: {error.strerror}") from error

    def fetch(self, folder: str, names: Sequence[str], bundle: Mapping[str, str]) -> dict[str, bytes]:
        """Some of a bundle's files (name -> sha256), in one transfer."""
        archive = f"{self._session.folder()}/fetched.tar"
        self._checked(PACK, archive, folder, *names, what=f"{folder} cannot be read", timeout_s=LONG_S)
        with tarfile.open(fileobj=io.BytesIO(self.read(archive))) as tar:
            found = {m.name: file.read() for m in tar.getmembers() if (file := tar.extractfile(m)) is not None}
        wrong = [name for name in names if hashlib.sha256(found.get(name, b"")).hexdigest() != bundle[name]]
        if wrong:
            raise StageError(self._where, f"{folder}: {', '.join(wrong)} did not stay whole (sha256 differs)")
        return {name: found[name] for name in names}

    def drop(self, state: State, parts: Iterable[str]) -> None:
        """Remove folders below the base, but never the current version; says nothing where it cannot."""
        with suppress(EdgekitError):
            self._sh(DROP, state.base, *parts, timeout_s=LONG_S)

    def _sh(self, script: str, *arguments: str, timeout_s: float = QUICK_S) -> Completed:
        return self._session.execute(["sh", "-c", script, "sh", *arguments], timeout_s=timeout_s)

    def _checked(self, script: str, *arguments: str, what: str, timeout_s: float = QUICK_S) -> Completed:
        """Its output; UnavailableError, in the device's own last words, where it fails."""
        found = self._sh(script, *arguments, timeout_s=timeout_s)
        if found.returncode:
            lines = [line.strip() for line in found.stderr.splitlines() if line.strip()]
            last = next((line for line in lines if "space" in line or "ermission" in line), lines[-1] if lines else "")
            raise UnavailableError(self._where, f"{what}: {last or f'exit code {found.returncode}'}")
        return found


def _number(version: str) -> int:
    return int(version.partition("-")[0])
