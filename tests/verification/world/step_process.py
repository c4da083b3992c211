"""A process that runs one step of the product through its use cases, without a broker, and exits.

Its hints are lost, as they may be after a kill. Like any process, it reads its settings from the environment.
"""

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from api_shim.assembly import ApiUseCases
from scheduler import assembly
from scheduler.assembly import WorkerUseCases
from scheduler.domain.command import CommandKind, CreateInterview, Request
from scheduler.domain.interview import Candidate
from scheduler.domain.principal import Principal
from scheduler.ids import new_id
from scheduler.logs import configure
from scheduler.persistence.errors import ClockWrong
from scheduler.persistence.inbox import StillRunning
from scheduler.rules.webhooks import room
from scheduler.settings import Settings
from scheduler.use_cases.release import Release
from scheduler.use_cases.resources.idempotent_writes import WriteRequest, WriteResult
from scheduler.use_cases.webhooks.deliver import Deliver, Result
from scheduler.use_cases.webhooks.deliverer import THREADS
from scheduler.wire.batches import Item
from tests.support.builders import RecordingHints
from tests.verification.world.wrong_clock import REFUSED, WrongClock

_NEVER = threading.Event()
_BETWEEN_ROUNDS_S = 0.1


def run(environment: Mapping[str, str], step: str, words: Sequence[Any], clock: WrongClock | None) -> None:
    """Run `step`. Exits with REFUSED if the product rejects this process's `clock`."""
    os.environ.update(environment)
    configure()
    if clock is not None:
        clock.begin()
    try:
        if step in API_STEPS:
            API_STEPS[step](ApiUseCases(Settings(), RecordingHints()), *words)
        elif step == "deliver":
            _deliver(assembly.deliverer(Settings(), RecordingHints())._deliver)
        elif step == "look":
            _look(assembly.release(Settings(), RecordingHints()))
        else:
            WORKER_STEPS[step](WorkerUseCases(Settings(), RecordingHints()), *words)
    except ClockWrong:
        if clock is None:
            raise
        sys.exit(REFUSED)


def _submit(api: ApiUseCases, principal: Principal, request: Request, idempotency_key: str) -> None:
    api.submit.command(principal, None, request, idempotency_key=idempotency_key, request_hash=b"the same")


def _change_candidate(
    api: ApiUseCases, principal: Principal, idempotency_key: str, candidate_id: UUID, changes: Mapping[str, Any]
) -> None:
    """Change a candidate, as a client that repeats its request after each 409 `IDEMPOTENCY_IN_PROGRESS`."""
    written: WriteResult | None = None
    while written is None:
        sent = WriteRequest(
            kind=CommandKind.UPDATE_CANDIDATE,
            principal=principal,
            idempotency_key=idempotency_key,
            request_hash=b"the same",
            # The API creates an id for each request, and for each repetition of a request.
            command_id=new_id(api.now()),
        )
        with suppress(StillRunning):
            written = api.candidates.change(sent, None, candidate_id, changes)
    assert written.refusal is None, f"the change was refused: {written.refusal}"
    assert isinstance(written.record, Candidate)
    assert changes.items() <= vars(written.record).items(), "the answer shows the change"


def _store_batch(api: ApiUseCases, principal: Principal, request: CreateInterview, idempotency_key: str) -> None:
    """Store a batch, as a client that repeats its request after each 409 `IDEMPOTENCY_IN_PROGRESS`."""
    written: WriteResult | None = None
    while written is None:
        with suppress(StillRunning):
            sent = _write_of(api, CommandKind.CREATE_BATCH, principal, idempotency_key)
            written = api.batches.create(sent, None, None, [Item(index=0, request=request)])


def _cancel_batch(api: ApiUseCases, principal: Principal, batch_id: UUID) -> None:
    api.batches.cancel(_write_of(api, CommandKind.CANCEL_BATCH, principal, None), None, batch_id)


def _replay(api: ApiUseCases, principal: Principal, endpoint_id: UUID, event_id: UUID, idempotency_key: str) -> None:
    """Replay a delivery, as a client that repeats its request after each 409 `IDEMPOTENCY_IN_PROGRESS`."""
    written: WriteResult | None = None
    while written is None:
        with suppress(StillRunning):
            sent = _write_of(api, CommandKind.REPLAY_DELIVERY, principal, idempotency_key)
            written = api.webhook_deliveries.replay_one(sent, endpoint_id, event_id)
    assert written.refusal is None, f"the replay was refused: {written.refusal}"


def _write_of(api: ApiUseCases, kind: CommandKind, principal: Principal, idempotency_key: str | None) -> WriteRequest:
    return WriteRequest(
        kind=kind,
        principal=principal,
        idempotency_key=idempotency_key,
        request_hash=b"the same",
        command_id=new_id(api.now()),
    )


def _look(release: Release) -> None:
    """Run one round of the clock."""
    release.round(resends=True)


def _deliver(deliver: Deliver) -> None:
    """Claim, send and record until nothing is due, or another process holds what is.

    Like the deliverer, it records results again while the other process holds their endpoint to claim from it.
    """
    while claims := deliver.claim(room(THREADS, [], unrecorded=0)):
        results: Sequence[Result] = [deliver.send(each) for each in claims]
        while results := deliver.record(results):
            _NEVER.wait(_BETWEEN_ROUNDS_S)


def _settle(worker: WorkerUseCases, rounds: int = 1) -> None:
    for _ in range(rounds):
        worker.settle.round()
        _NEVER.wait(_BETWEEN_ROUNDS_S)


def _erase(worker: WorkerUseCases, company_id: UUID, batch: int) -> None:
    """Erase the company, `batch` rows per transaction. Small batches give many opportunities to kill it."""
    worker.erase._batch = batch
    worker.erase.company(company_id)


API_STEPS: Mapping[str, Callable[..., object]] = {
    "submit": _submit,
    "change_candidate": _change_candidate,
    "store_batch": _store_batch,
    "cancel_batch": _cancel_batch,
    "replay": _replay,
    "callback": lambda api, *received: api.hear.store([api.hear.genuine(*received)]),
}
WORKER_STEPS: Mapping[str, Callable[..., object]] = {
    "take": lambda worker, message: worker.messages.take(message),
    "batches": lambda worker: worker.batches.turn(),
    "apply": lambda worker, command_id: worker.apply.command(command_id),
    "hear": lambda worker, event_id: worker.hear.event(event_id),
    "settle": _settle,
    "number": lambda worker: worker.number_events.all(),
    "erase": _erase,
    "erase people": lambda worker: worker.erase_people.turn(),
}
