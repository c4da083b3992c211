"""A maintenance worker without a broker: it goes on with the erasure of one company, and ends.

Its settings come from the environment, as any worker's.
"""

import os
from collections.abc import Mapping
from uuid import UUID

from scheduler import assembly
from scheduler.logs import configure
from scheduler.settings import Settings
from tests.builders import KeptBell


def run(environment: Mapping[str, str], company_id: UUID, batch: int) -> None:
    """`batch` is how many rows go at a time: few, so that there are many places to die at."""
    os.environ.update(environment)
    configure()
    shop = assembly.workshop(Settings(), KeptBell())
    shop.erase._batch = batch
    shop.erase.company(company_id)
