"""Several devices at once: a thread and a connection for each; one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, suppress

from toolkit.core import Session
from toolkit.devices import DeviceProfile, open_session
from toolkit.errors import EdgekitError

Work = Callable[[DeviceProfile, Session], None]


def on_each(profiles: Sequence[DeviceProfile], work: Work) -> dict[str, EdgekitError]:
    """Carry out `work` on every device; what went wrong on which. Where all fail, the first one's error is raised."""
    if len(profiles) == 1:
        with closing(open_session(profiles[0])) as session:
            work(profiles[0], session)
        return {}
    return _in_threads(profiles, work)


def _in_threads(profiles: Sequence[DeviceProfile], work: Work) -> dict[str, EdgekitError]:
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    opened: list[Session] = []

    def carry_out(profile: DeviceProfile) -> EdgekitError | None:
        try:
            session = open_session(profile)
            opened.append(session)
            with closing(session):
                work(profile, session)
        except EdgekitError as error:
            return error
        return None

    with ThreadPoolExecutor(len(profiles)) as threads:
        try:
            running = {profile.name: threads.submit(carry_out, profile) for profile in profiles}
            done, _ = wait(running.values(), return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()  # raises what no thread expected, before the others have ended
            ended = {name: future.result() for name, future in running.items()}
        except BaseException:  # an interrupt above all: what runs on the devices ends with its connection
            for session in opened:
                with suppress(EdgekitError, OSError):
                    session.close()
            raise
    failed = {name: error for name, error in ended.items() if error is not None}
    if len(failed) == len(profiles):
        raise next(iter(failed.values()))
    return failed
