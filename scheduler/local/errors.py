"""Reasons why a server or the system cannot run on this machine."""


class ServerUnavailable(Exception):
    """A private server cannot be had here; the message says why and what to do."""


class Stopped(Exception):
    """It was told to stop before it was ready."""


class CannotRun(Exception):
    """The system cannot be run so, here; the message says why and what to do."""


class AlreadyRunning(CannotRun):
    """Another one runs in this folder."""


class PortTaken(CannotRun):
    """The port that was asked for cannot be listened on."""


class NotReady(CannotRun):
    """The system did not become ready; its logs say why."""


class HomeUnusable(CannotRun):
    """Its folder cannot be made, written or read."""
