"""A process that runs one step of the product through its use cases, without a broker, and exits.

Its hints are lost, as they may be after a kill. Like any process, it reads its settings from the environment.
"""

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from scheduler import assembly
from scheduler.assembly import ApiUseCases, WorkerUseCases
from scheduler.domain.command import Request
from scheduler.domain.principal import Principal
from scheduler.domain.resource import Changes
from scheduler.logs import configure
from scheduler.persistence.errors import ClockWrong
from scheduler.settings import Settings
from scheduler.use_cases.resources.idempotent_writes import WriteRequest
from tests.support.builders import RecordingHints
from tests.verification.crash.wrong_clock import REFUSED, WrongClock

_NEVER = threading.Event()
_BETWEEN_ROUNDS_S = 0.1


def run(environment: Mapping[str, str], step: str, *words: Any, clock: WrongClock | None = None) -> None:
    """Run `step`. Exits with REFUSED if the product rejects this process's `clock`."""
    os.environ.update(environment)
    configure()
    if clock is None:
        _do(step, *words)
        return
    clock.begin()
    try:
        _do(step, *words)
    except ClockWrong:
        sys.exit(REFUSED)


def _do(step: str, *words: Any) -> None:
    if step in API_STEPS:
        API_STEPS[step](assembly.api_use_cases(Settings(), RecordingHints()), *words)
    else:
        WORKER_STEPS[step](assembly.worker_use_cases(Settings(), RecordingHints()), *words)


def _submit(use_cases: ApiUseCases, principal: Principal, request: Request, idempotency_key: str) -> None:
    use_cases.submit.command(principal, None, request, idempotency_key=idempotency_key, request_hash=b"the same")


def _change_candidate(use_cases: ApiUseCases, sent: WriteRequest, candidate_id: UUID, changes: Changes) -> None:
    use_cases.candidates.change(sent, None, candidate_id, changes)


def _callback(use_cases: ApiUseCases, token: str, path: str, form: Sequence[tuple[str, str]], signature: str) -> None:
    use_cases.hear.callback(token, path, form, signature)


def _look(shop: WorkerUseCases) -> None:
    """Run one round of the clock."""
    shop.release.due()
    shop.release.resend_hints()


def _settle(shop: WorkerUseCases, rounds: int = 1) -> None:
    for _ in range(rounds):
        shop.settle.round()
        _NEVER.wait(_BETWEEN_ROUNDS_S)


def _erase(shop: WorkerUseCases, company_id: UUID, batch: int) -> None:
    """Erase the company, `batch` rows per transaction. Small batches give many opportunities to kill it."""
    shop.erase._batch = batch
    shop.erase.company(company_id)


API_STEPS: Mapping[str, Callable[..., None]] = {
    "submit": _submit,
    "change_candidate": _change_candidate,
    "callback": _callback,
}
WORKER_STEPS: Mapping[str, Callable[..., None]] = {
    "take": lambda shop, message: shop.messages.take(message),
    "apply": lambda shop, command_id: shop.apply.command(command_id),
    "look": _look,
    "hear": lambda shop, event_id: shop.hear.event(event_id),
    "settle": _settle,
    "erase": _erase,
}
