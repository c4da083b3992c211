"""Idempotency: the first command with a key, for every request that repeats it."""

from scheduler.domain.command import Command
from scheduler.domain.refusals import IdempotencyKeyReused
from scheduler.persistence.stores import Stores


def first_with_its_key(stores: Stores, command: Command) -> Command:
    """Return the first command with this idempotency key. Raises IdempotencyKeyReused if its request differs."""
    assert command.idempotency_key is not None
    first = stores.inbox.by_key(command.principal_id, command.idempotency_key)
    assert first is not None
    if not first.is_of_request(command.request_hash, command.former_hash):  # guard: same_request
        raise IdempotencyKeyReused
    return first
