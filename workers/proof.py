"""Proof of work: a process touches a file whenever its work has succeeded.

A health check reads the file's age by `find`, without another Python process. The variable DUECALL_PROOF_FILE names it.
"""

from contextlib import suppress
from pathlib import Path
from threading import Lock

from scheduler.clock import monotonic
from scheduler.logs import log

_log = log(__name__)
_EVERY_S = 1.0


class _Proof:
    """The file of this process."""

    path: Path | None = None
    next_at = 0.0
    has_failed = False


_lock = Lock()


def begin(path: Path | None) -> None:
    """Set the file of this process, and delete the one of an earlier process. None: there is no health check."""
    _Proof.path, _Proof.next_at = path, 0.0
    if path is not None:
        path.unlink(missing_ok=True)


def end() -> None:
    """Delete the file: this process stops, and does no more work."""
    with _lock:
        path, _Proof.path = _Proof.path, None
    if path is not None:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def worked() -> None:
    """Note that this process has done its work. Touches the file at most once a second. Never raises."""
    instant = monotonic()
    with _lock:
        if _Proof.path is None or instant < _Proof.next_at:
            return
        _Proof.next_at = instant + _EVERY_S
        _touch(_Proof.path)


def _touch(path: Path) -> None:
    try:
        path.touch()
    except OSError as error:
        if not _Proof.has_failed:
            _log.warning(
                "proof_not_written: the file of DUECALL_PROOF_FILE could not be written, so health checks fail",
                exc_info=error,
            )
        _Proof.has_failed = True
    else:
        _Proof.has_failed = False
