"""Errors of servers and systems on this machine."""


class ServerUnavailable(Exception):
    """A private server cannot run here. The message contains the reason and a remedy."""


class Stopped(Exception):
    """The system was stopped before it was ready."""


class CannotRun(Exception):
    """The system cannot run here. The message contains the reason and a remedy."""


class AlreadyRunning(CannotRun):
    """Another system runs in this folder."""


class PortTaken(CannotRun):
    """The requested port cannot be used."""


class NotReady(CannotRun):
    """The system did not become ready. Its logs contain the reason."""


class HomeUnusable(CannotRun):
    """The system's folder cannot be created, written or read."""
