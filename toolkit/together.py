"""Several devices at once: a thread and a connection for each; one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from threading import Event, Thread
from time import monotonic

from toolkit.core import Session
from toolkit.devices import DeviceProfile, open_session
from toolkit.errors import EdgekitError

ENDING_S = 5.0  # for what is still being done on devices whose connection was closed
Work = Callable[[DeviceProfile, Session], None]


def on_each(profiles: Sequence[DeviceProfile], work: Work) -> dict[str, EdgekitError]:
    """Carry out `work` on every device; what went wrong on which. Where all fail, the first one's error is raised."""
    if len(profiles) == 1:
        with closing(open_session(profiles[0])) as session:
            work(profiles[0], session)
        return {}
    return _in_threads(profiles, work)


def _in_threads(profiles: Sequence[DeviceProfile], work: Work) -> dict[str, EdgekitError]:
    from concurrent.futures import FIRST_EXCEPTION, Future, wait

    opened: list[Session] = []
    ending = Event()
    futures: dict[str, Future[EdgekitError | None]] = {profile.name: Future() for profile in profiles}

    def carry_out(profile: DeviceProfile) -> EdgekitError | None:
        try:
            session = open_session(profile)
            opened.append(session)
            with closing(session):
                if not ending.is_set():
                    work(profile, session)
        except EdgekitError as error:
            return error
        return None

    def told(profile: DeviceProfile) -> None:
        try:
            futures[profile.name].set_result(carry_out(profile))
        except BaseException as error:
            futures[profile.name].set_exception(error)

    # daemons: one that waits for others to give the device back, an hour perhaps, keeps nobody from leaving
    threads = [Thread(target=told, args=(profile,), daemon=True) for profile in profiles]
    try:
        for thread in threads:
            thread.start()
        done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()  # raises what no thread expected, before the others have ended
    except BaseException:  # an interrupt above all: what runs on the devices ends with its connection
        ending.set()
        for session in tuple(opened):
            with suppress(EdgekitError, OSError):
                session.close()
        _await(threads)
        raise
    found = {name: future.result() for name, future in futures.items()}
    failed = {name: error for name, error in found.items() if error is not None}
    if len(failed) == len(profiles):
        raise next(iter(failed.values()))
    return failed


def _await(threads: Sequence[Thread]) -> None:
    stop = monotonic() + ENDING_S
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, stop - monotonic()))
