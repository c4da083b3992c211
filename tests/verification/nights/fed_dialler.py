"""Dial worker without a broker: its hints come through a pipe, until None is sent."""

import os
from collections.abc import Mapping
from multiprocessing.connection import Connection

from scheduler import assembly
from scheduler.logs import configure
from scheduler.settings import Settings


def run(environment: Mapping[str, str], rings: Connection) -> None:
    os.environ.update(environment)
    configure()
    dialler = assembly.dialler(Settings())
    dialler.start()
    while (ring := rings.recv()) is not None:
        dialler.take(*ring)
    dialler.stop()
