"""How a run ends: well, on an error or by Ctrl-C. Each leaves a valid manifest and a log that say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from toolkit import runs
from toolkit.core import Progress
from toolkit.ended import interrupted
from toolkit.errors import EdgekitError, UnavailableError
from toolkit.parts import Emit
from toolkit.run_log import RunLog

USER = "interrupted by the user"


@contextmanager
def ending(run: runs.Run, log: RunLog, emit: Emit, scratch: Path) -> Iterator[None]:
    """What is done inside is the run: `done` after it, `failed` with the reason where it raises; `scratch` goes.

    An OSError becomes an UnavailableError.
    """
    manifest, started, before = run.manifest, perf_counter(), run.manifest.seconds
    log.begin(host=manifest.host, versions=manifest.versions, invocation=manifest.invocation)

    def failed(error: BaseException, words: str) -> None:
        log.error(error)
        runs.remove_scratch(scratch)  # on a full disk it makes room for the manifest
        run.update(status="failed", error=words, seconds=round(before + perf_counter() - started, 3))

    def hint() -> None:
        emit(Progress(f"the run stopped; `edgekit run --resume {run.folder}` takes it up again", keep=True))

    try:
        yield
    except KeyboardInterrupt as error:
        failed(error, str(error) or USER)
        hint()
        raise
    except EdgekitError as error:
        failed(error, USER if interrupted() else str(error))
        hint()
        raise
    except OSError as error:
        place = str(error.filename or run.folder)
        known = UnavailableError(place, error.strerror or str(error), "free some space, or choose another --out")
        failed(error, USER if interrupted() else str(known))
        hint()
        raise known from error
    except Exception as error:
        failed(error, USER if interrupted() else f"{type(error).__name__}: {error}")
        raise
    finally:
        runs.remove_scratch(scratch)
    for text in log.untold(run.manifest.warnings):
        emit(Progress(text, keep=True))
    run.update(status="done", seconds=round(before + perf_counter() - started, 3))
    log.line(f"done in {run.manifest.seconds:.1f} s: {run.manifest.outcome or 'no gate'}")
