"""A dial worker whose loop ends with an error once the worker is ready."""

import ctypes
import threading

from celery.signals import worker_ready

from workers.app import app

__all__ = ["app"]


@worker_ready.connect  # type: ignore[untyped-decorator]
def _end_the_loop(**_: object) -> None:
    [loop] = [each for each in threading.enumerate() if each.name == "dial-loop"]
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(loop.ident or 0), ctypes.py_object(RuntimeError))
