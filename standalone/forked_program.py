"""The program of the fork server: imports what Duecall's processes import, once, and forks a process for each request.

A forked process continues as `python -m MODULE ...` with its own environment, log and session. It is forked before any
thread, connection, setting or event loop exists. The modules' memory is shared until a process writes to it.
"""

import ctypes
import gc
import importlib
import itertools
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from scheduler.settings import replace_environment

IMPORTED = (
    "api_shim.app",
    "console.app",
    "workers.tasks",
    "workers.clock",
    "scheduler.carriers.twilio_calls",
    "scheduler.carriers.twilio_queries",
    "celery.bin.celery",
    "celery.apps.worker",
    "celery.apps.beat",
    "celery.concurrency.solo",
    "celery.concurrency.thread",
    "celery.worker.consumer",
    "flower.command",
    "uvicorn.main",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.auto",
    "command_line.main",
    "standalone.simulator.app",
)
"""Another package may move one of these: it is then imported by each process, as without a fork server."""

MAX_MESSAGE = 1_000_000
_SET_PARENT_DEATH_SIGNAL, _SET_NAME = 1, 15
_THREADS = Path("/proc/self/task")


def main() -> None:
    """Serve on the socket that is standard input. In a forked process, run the requested module."""
    for module in IMPORTED:
        with suppress(ImportError):
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a collection would write to the shared memory of every object
    request = _requested(socket.socket(fileno=os.dup(0)))
    if request is not None:
        _become(request)
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def _requested(supervisor: socket.socket) -> dict[str, Any] | None:
    """Fork a process for each request. Return the request in the forked process, and None when the supervisor ends."""
    parent = os.getpid()
    children: dict[int, tuple[int, int]] = {}
    numbers = itertools.count()
    poller = select.poll()
    poller.register(supervisor, select.POLLIN)
    while True:
        for descriptor, _ in poller.poll():
            if descriptor in children:
                poller.unregister(descriptor)
                number, pid = children.pop(descriptor)
                os.close(descriptor)
                _, status = os.waitpid(pid, 0)
                _send(supervisor, {"ended": number, "status": os.waitstatus_to_exitcode(status)})
                continue
            message = supervisor.recv(MAX_MESSAGE)
            if not message:
                return None
            try:
                if len(list(_THREADS.iterdir())) > 1:
                    sys.exit("an imported module has started a thread, so nothing may be forked")
                pid = os.fork()
            except OSError as error:
                _send(supervisor, {"failed": error.errno or 0})
                continue
            if pid == 0:
                supervisor.close()
                for each in children:
                    os.close(each)
                return {**json.loads(message), "parent": parent}
            try:
                child = os.pidfd_open(pid)
            except OSError as error:  # too many files: the others go on
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                _send(supervisor, {"failed": error.errno or 0})
                continue
            number = next(numbers)
            children[child] = number, pid
            poller.register(child, select.POLLIN)
            _send(supervisor, {"forked": number, "pid": pid}, child)


def _send(supervisor: socket.socket, message: dict[str, int], *descriptors: int) -> None:
    with suppress(OSError):  # it has ended, and the next poll tells
        socket.send_fds(supervisor, [json.dumps(message).encode("ascii")], descriptors)


def _become(request: dict[str, Any]) -> None:
    """Take the session, the log, the environment and the arguments of the requested process."""
    os.setsid()
    libc = ctypes.CDLL(None)
    libc.prctl(_SET_NAME, f"duecall {request['name']}".encode("ascii", "replace")[:15], 0, 0, 0)
    libc.prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != request["parent"]:
        sys.exit("the parent has ended")
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    replace_environment(request["environment"])
    time.tzset()
    sys.argv = [request["module"], *request["arguments"]]


if __name__ == "__main__":
    main()
