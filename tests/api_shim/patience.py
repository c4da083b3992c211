"""Time for a starved machine: the API gives up a silent Redis within a second, and then limits and waits no longer."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from api_shim import answer_waiter, rate_limits, request_input
from workers import hints, liveness

PATIENCE_S = 20.0


@contextmanager
def patient_with_redis() -> Iterator[None]:
    """Let APIs and workers in this process wait longer for Redis, and requests for a worker.

    A Redis that has ended is noticed at once, as before. A test of a Redis that hangs sets the product's time itself.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rate_limits, "_PATIENCE_S", PATIENCE_S)
        patch.setattr(answer_waiter, "_SILENCE_S", PATIENCE_S)
        patch.setattr(hints, "_SOCKET_TIMEOUT", PATIENCE_S)
        patch.setattr(liveness, "_TIMEOUT_S", PATIENCE_S)
        patch.setattr(request_input, "DEFAULT_WAIT_S", PATIENCE_S)
        yield
