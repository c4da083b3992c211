"""A command that waits for its answer, and the Redis channel of the answers."""

from dataclasses import replace
from uuid import uuid4

from scheduler.domain.command import Answer, Command, CommandKind
from tests.conftest import NOON

CHANNEL = "a test:answered"


def a_command() -> Command:
    return Command(
        id=uuid4(),
        kind=CommandKind.CREATE_INTERVIEW,
        principal_id=uuid4(),
        company_id=uuid4(),
        idempotency_key=None,
        request_hash=b"hash",
        received_at=NOON,
    )


def done(command: Command) -> Command:
    return replace(command, applied_at=NOON, answer=Answer())
