"""The judge rejects a wrong history of each kind, and accepts similar correct histories."""

import ast
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from tests.verification.histories import judge
from tests.verification.histories.judge import (
    Claim,
    ClientRequest,
    ClientResponse,
    History,
    HistoryEntry,
    Patience,
    Ring,
    Row,
    Verb,
    Wrong,
    violations,
)

START = datetime(2026, 4, 2, 12, 0, tzinfo=UTC)
COMPANY, INTERVIEW, ATTEMPT, ANOTHER = UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=4)
NUMBER = "+421915200000"
WAYS = {
    "created": ("", "PENDING", ""),
    "claimed": ("PENDING", "IN_PROGRESS", ""),
    "placed": ("IN_PROGRESS", "IN_PROGRESS", ""),
    "deferred": ("IN_PROGRESS", "PENDING", ""),
    "not_placed": ("IN_PROGRESS", "PENDING", ""),
    "never_dialled": ("IN_PROGRESS", "PENDING", ""),
    "answered": ("IN_PROGRESS", "COMPLETED", "ANSWERED"),
    "deleted": ("CANCELLED", "CANCELLED", "CANCELLED_BY_USER"),
    "cancelled": ("PENDING", "CANCELLED", "CANCELLED_BY_USER"),
    "replaced": ("PENDING", "CANCELLED", "REPLACED"),
    "rescheduled": ("PENDING", "PENDING", ""),
    "expired": ("PENDING", "FAILED", "EXPIRED"),
    "given_up": ("IN_PROGRESS", "FAILED", "OUTCOME_UNKNOWN"),
}


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def a_row(story: str, *, id: UUID = ATTEMPT, first_seq: int = 1, interview_id: UUID = INTERVIEW) -> Row:  # noqa: A002
    """Build a row from `event@second event@second ...`. Each claim has its own token."""
    steps = [step.split("@") for step in story.split()]
    happenings = tuple(
        HistoryEntry(
            seq=first_seq + place,
            at=at(float(second)),
            event=event,
            from_state=WAYS[event][0],
            to_state=WAYS[event][1],
            reason=WAYS[event][2],
            epoch=place,
        )
        for place, (event, second) in enumerate(steps)
    )
    claimed = [happening.at for happening in happenings if happening.event == "claimed"]
    return Row(
        id=id,
        interview_id=interview_id,
        company_id=COMPANY,
        line="a line",
        state=happenings[-1].to_state,
        reason=happenings[-1].reason,
        epoch=happenings[-1].epoch,
        due_at=START,
        expires_at=at(86_400),
        happenings=happenings,
        claims=tuple(Claim(token=f"{id.int}-{turn}", at=instant) for turn, instant in enumerate(claimed)),
    )


def a_ring(second: float, *, turn: int = 0, of: UUID = ATTEMPT, ended: float | None = None) -> Ring:
    return Ring(
        token=f"{of.int}-{turn}",
        number=NUMBER,
        accepted_at=at(second),
        rang_at=at(second + 1),
        ended_at=at(second + 10 if ended is None else ended),
    )


def asked(verb: Verb, second: float, status: int, *, took: float = 1, **more: object) -> ClientRequest:
    about: dict[str, object] = {"company_id": COMPANY, "interview_id": INTERVIEW, "attempt_id": ATTEMPT}
    told = ClientResponse(status=status, at=at(second + took))
    return ClientRequest(verb=verb, asked_at=at(second), told=told, **(about | more))  # type: ignore[arg-type]


def a_pause(verb: Verb, second: float) -> ClientRequest:
    return asked(verb, second, 204, interview_id=None, attempt_id=None)


CALLED = a_row("created@0 claimed@10 placed@11 answered@22")
WAITING = a_row("created@0")
CANCELLED = a_row("created@0 cancelled@5 deleted@5")
REPLACED = a_row("created@0 replaced@5")
SUCCESSOR = a_row("created@5 claimed@20 answered@31", id=ANOTHER, first_seq=50)
GIVEN_BACK = a_row("created@0 claimed@10 deferred@11 claimed@16 answered@30")
ELSEWHERE = UUID(int=9)
GAP = Patience(line_gap=timedelta(seconds=100))
GIVEN_UP = a_row("created@0 claimed@10 given_up@40")


def a_later_call(claimed: float, interview_id: UUID = ELSEWHERE) -> Row:
    story = f"created@{claimed - 1} claimed@{claimed} answered@{claimed + 15}"
    return a_row(story, id=ANOTHER, first_seq=50, interview_id=interview_id)


NOT_APPLIED = asked(Verb.MOVE, 5, 202, due_at=at(3600))


def a_history(*attempts: Row, **more: object) -> History:
    usual: dict[str, object] = {"attempts": attempts, "until": at(60)}
    return History(**(usual | more))  # type: ignore[arg-type]


WRONG = [
    pytest.param(
        Wrong.RANG_AFTER_DELETE,
        a_history(CALLED, rings=(a_ring(10.5),), asked=(asked(Verb.DELETE, 5, 204),)),
        id="it rings after the 204 of its DELETE",
    ),
    pytest.param(
        Wrong.RANG_AFTER_DELETE,
        a_history(
            CALLED,
            rings=(a_ring(10.5),),
            asked=(replace(asked(Verb.DELETE, 5, 202), applied=ClientResponse(status=204, at=at(9))),),
        ),
        id="it rings after an accepted DELETE was applied",
    ),
    pytest.param(
        Wrong.RANG_WHILE_ACCEPTED,
        a_history(CALLED, rings=(a_ring(10.5),), asked=(asked(Verb.DELETE, 5, 202),)),
        id="it rings after the 202 of a DELETE that is not applied",
    ),
    pytest.param(
        Wrong.RANG_WHILE_ACCEPTED,
        a_history(
            CALLED,
            rings=(a_ring(10.5),),
            asked=(replace(NOT_APPLIED, applied=ClientResponse(status=409, at=at(12))),),
        ),
        id="it rings between the 202 of a PATCH and its refusal",
    ),
    pytest.param(
        Wrong.RANG_AFTER_REPLACED,
        a_history(
            CALLED,
            rings=(a_ring(10.5),),
            asked=(asked(Verb.INVOKE, 5, 201, attempt_id=ANOTHER),),
        ),
        id="it rings after the 201 of its replacement",
    ),
    pytest.param(
        Wrong.RANG_EARLY,
        a_history(CALLED, rings=(a_ring(10.5),), asked=(asked(Verb.CREATE, 0, 201, due_at=at(15)),)),
        id="it rings before it was due",
    ),
    pytest.param(
        Wrong.RANG_EARLY,
        a_history(
            CALLED,
            rings=(a_ring(10.5),),
            asked=(asked(Verb.CREATE, 0, 201, due_at=at(2)), asked(Verb.MOVE, 5, 204, due_at=at(20))),
        ),
        id="it rings at its time before the move",
    ),
    pytest.param(
        Wrong.RANG_TWICE,
        a_history(CALLED, rings=(a_ring(10.5), a_ring(21))),
        id="one claim rings twice",
    ),
    pytest.param(
        Wrong.RANG_TWICE,
        a_history(
            a_row("created@0 claimed@10 placed@11 claimed@16 answered@30"),
            rings=(a_ring(10.5, ended=12), a_ring(16.5, turn=1)),
        ),
        id="a second claim rings after the first has rung",
    ),
    pytest.param(
        Wrong.RANG_UNCLAIMED,
        a_history(WAITING, rings=(a_ring(5),)),
        id="it rings with an unknown token",
    ),
    pytest.param(
        Wrong.RANG_GIVEN_BACK,
        a_history(GIVEN_BACK, rings=(a_ring(10.5, ended=12),)),
        id="a returned claim rings",
    ),
    pytest.param(
        Wrong.RANG_WHILE_PAUSED,
        a_history(CALLED, rings=(a_ring(10.5),), asked=(a_pause(Verb.PAUSE, 5),)),
        id="it is claimed while its company is paused",
    ),
    pytest.param(
        Wrong.RANG_WHILE_PAUSED,
        a_history(
            CALLED,
            rings=(a_ring(15),),
            asked=(replace(a_pause(Verb.PAUSE, 10.2), company_id=None), a_pause(Verb.RESUME, 40)),
            patience=Patience(in_flight=timedelta(seconds=1)),
        ),
        id="it was claimed before everything was paused and rings long after",
    ),
    pytest.param(
        Wrong.RANG_EXPIRED,
        a_history(replace(CALLED, expires_at=at(8)), rings=(a_ring(10.5),)),
        id="it rings after its expiry",
    ),
    pytest.param(
        Wrong.TWO_LEGS,
        a_history(
            CALLED,
            a_row("created@0 claimed@12 answered@30", id=ANOTHER, first_seq=50, interview_id=UUID(int=9)),
            rings=(a_ring(10.5), a_ring(12.5, of=ANOTHER)),
        ),
        id="two attempts ring one number at once",
    ),
    pytest.param(
        Wrong.TWO_LEGS,
        a_history(
            a_row("created@0 claimed@10"),
            a_row("created@0 claimed@12", id=ANOTHER, first_seq=50, interview_id=UUID(int=9)),
        ),
        id="two attempts of one line are in progress",
    ),
    pytest.param(
        Wrong.RANG_IN_GAP,
        a_history(
            CALLED,
            a_later_call(119),
            rings=(a_ring(10.5, ended=20), a_ring(119.5, of=ANOTHER)),
            patience=GAP,
            until=at(999),
        ),
        id="another interview's call rings within the gap",
    ),
    pytest.param(
        Wrong.RANG_IN_GAP,
        a_history(
            CALLED,
            a_row("created@21 claimed@22 answered@28", id=UUID(int=5), first_seq=30),
            a_later_call(125),
            rings=(
                a_ring(10.5, ended=20),
                a_ring(22.5, of=UUID(int=5), ended=27),
                a_ring(125.5, of=ANOTHER),
            ),
            patience=GAP,
            until=at(999),
        ),
        id="a call rings within the gap after a retry",
    ),
    pytest.param(
        Wrong.RANG_IN_GAP,
        a_history(
            GIVEN_UP,
            a_later_call(139, INTERVIEW),
            rings=(a_ring(10.5, ended=20), a_ring(139.5, of=ANOTHER)),
            patience=GAP,
            until=at(999),
        ),
        id="a call of the same interview rings too soon after an unknown outcome",
    ),
    pytest.param(Wrong.LOST, a_history(WAITING, until=at(61)), id="it is due and free, and waits too long"),
    pytest.param(
        Wrong.LOST,
        a_history(
            WAITING,
            until=at(400),
            asked=(
                replace(NOT_APPLIED, applied=ClientResponse(status=409, at=at(7))),
                a_pause(Verb.PAUSE, 1),
                a_pause(Verb.RESUME, 9),
            ),
        ),
        id="it waits although its command and pause are over",
    ),
    pytest.param(
        Wrong.LOST,
        a_history(a_row("created@0 claimed@10"), until=at(400)),
        id="it was claimed, never rang, and is not settled",
    ),
    pytest.param(
        Wrong.UNEXPLAINED,
        a_history(replace(CALLED, state="FAILED", reason="BUSY"), rings=(a_ring(10.5),)),
        id="its row and its history end differently",
    ),
    pytest.param(
        Wrong.UNEXPLAINED,
        a_history(a_row("created@0 placed@11 answered@22")),
        id="a step of its history is missing",
    ),
    pytest.param(
        Wrong.UNEXPLAINED,
        a_history(replace(WAITING, epoch=1)),
        id="its epoch rose without an event",
    ),
    pytest.param(
        Wrong.UNEXPLAINED,
        a_history(replace(CALLED, happenings=CALLED.happenings[:1] * 2 + CALLED.happenings[1:])),
        id="it was created twice",
    ),
    pytest.param(
        Wrong.UNEXPLAINED,
        a_history(replace(CALLED, claims=())),
        id="it was claimed without a token",
    ),
    pytest.param(Wrong.UNEXPLAINED, a_history(replace(WAITING, happenings=())), id="it has no history"),
    pytest.param(
        Wrong.TWO_OPEN,
        a_history(WAITING, a_row("created@5", id=ANOTHER, first_seq=50)),
        id="an interview has two pending attempts",
    ),
    pytest.param(
        Wrong.TWO_OPEN,
        a_history(
            a_row("created@0 claimed@10 answered@22", first_seq=1),
            a_row("created@5 cancelled@6", id=ANOTHER, first_seq=2),
        ),
        id="an interview had two open attempts for a moment",
    ),
]


@pytest.mark.parametrize(("kind", "history"), WRONG)
def test_a_wrong_history_is_rejected(kind: Wrong, history: History) -> None:
    assert kind in {violation.kind for violation in violations(history)}


def test_each_kind_of_violation_has_a_wrong_history() -> None:
    assert {parameters.values[0] for parameters in WRONG} == set(Wrong)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(a_history(), id="nothing happened"),
        pytest.param(
            a_history(
                CALLED,
                rings=(a_ring(10.5),),
                asked=(
                    asked(Verb.CREATE, 0, 201, due_at=at(10)),
                    asked(Verb.DELETE, 10.4, 409),
                    asked(Verb.MOVE, 10.6, 409, due_at=at(3600)),
                    asked(Verb.INVOKE, 11, 409, attempt_id=None),
                ),
            ),
            id="it rings, and late requests are refused",
        ),
        pytest.param(
            a_history(CANCELLED, asked=(asked(Verb.DELETE, 5, 204),), until=at(400)),
            id="it was deleted and never rang",
        ),
        pytest.param(
            a_history(CALLED, rings=(a_ring(10.5),), asked=(asked(Verb.DELETE, 40, 204),)),
            id="it rang, and was deleted when it was over",
        ),
        pytest.param(
            a_history(WAITING, asked=(NOT_APPLIED,), until=at(4000)),
            id="it waits for a command that is not applied",
        ),
        pytest.param(
            a_history(
                CALLED,
                rings=(a_ring(10.5),),
                asked=(replace(asked(Verb.DELETE, 5, 202), applied=ClientResponse(status=412, at=at(9))),),
            ),
            id="it rings after an accepted DELETE was refused",
        ),
        pytest.param(
            a_history(
                CALLED,
                rings=(a_ring(10.5),),
                asked=(asked(Verb.CREATE, 0, 201, due_at=at(3600)), asked(Verb.MOVE, 5, 204, took=8, due_at=at(10))),
            ),
            id="it rings at its new, earlier time, before the client has the answer",
        ),
        pytest.param(
            a_history(
                CALLED,
                rings=(a_ring(10.5),),
                asked=(
                    asked(Verb.MOVE, 1, 204, due_at=at(3600)),
                    asked(Verb.MOVE, 4, 204, due_at=at(9)),
                    asked(Verb.MOVE, 6, 409, due_at=at(7200)),
                ),
            ),
            id="the last of several requested times counts",
        ),
        pytest.param(
            a_history(
                REPLACED,
                SUCCESSOR,
                rings=(a_ring(20.5, of=ANOTHER),),
                asked=(asked(Verb.INVOKE, 4, 201, attempt_id=ANOTHER),),
            ),
            id="it was replaced, and its successor rings",
        ),
        pytest.param(
            a_history(
                CALLED,
                replace(SUCCESSOR, happenings=a_row("created@40 claimed@41 answered@52", first_seq=50).happenings),
                rings=(a_ring(10.5), a_ring(41.5, of=ANOTHER)),
                asked=(asked(Verb.INVOKE, 39, 201, attempt_id=ANOTHER),),
            ),
            id="two calls of one interview follow each other",
        ),
        pytest.param(
            a_history(GIVEN_BACK, rings=(a_ring(16.5, turn=1),)),
            id="it was returned unsent, and its second claim rings",
        ),
        pytest.param(
            a_history(
                a_row("created@0 claimed@10 placed@11 never_dialled@13 claimed@16 answered@30"),
                rings=(replace(a_ring(10.5, ended=12), rang_at=None), a_ring(16.5, turn=1)),
            ),
            id="the carrier never dialled it, and its second claim rings",
        ),
        pytest.param(
            a_history(
                CALLED,
                rings=(a_ring(10.5),),
                asked=(a_pause(Verb.PAUSE, 1), a_pause(Verb.RESUME, 4), a_pause(Verb.PAUSE, 15)),
            ),
            id="it rings between two pauses",
        ),
        pytest.param(
            a_history(
                CALLED,
                rings=(a_ring(11.5),),
                asked=(a_pause(Verb.PAUSE, 10.2),),
                patience=Patience(in_flight=timedelta(seconds=1)),
            ),
            id="it was in flight when its company was paused",
        ),
        pytest.param(
            a_history(
                CALLED,
                a_later_call(120),
                rings=(a_ring(10.5, ended=20), a_ring(120, of=ANOTHER)),
                patience=GAP,
                until=at(999),
            ),
            id="another interview's call rings after the gap",
        ),
        pytest.param(
            a_history(
                CALLED,
                a_later_call(24, INTERVIEW),
                rings=(a_ring(10.5, ended=20), a_ring(24.5, of=ANOTHER)),
                patience=GAP,
                until=at(999),
            ),
            id="a retry of the same interview does not wait for the gap",
        ),
        pytest.param(
            a_history(
                GIVEN_UP,
                a_later_call(140, INTERVIEW),
                rings=(a_ring(10.5, ended=45), a_ring(140, of=ANOTHER)),
                patience=GAP,
                until=at(999),
            ),
            id="a call rings after the gap that follows an unknown outcome",
        ),
        pytest.param(
            a_history(WAITING, asked=(replace(a_pause(Verb.PAUSE, 5), company_id=None),), until=at(4000)),
            id="it waits because everything is paused",
        ),
        pytest.param(
            a_history(
                CALLED,
                a_row("created@0", id=ANOTHER, first_seq=50, interview_id=UUID(int=9)),
                rings=(a_ring(10.5, ended=3000),),
                until=at(400),
            ),
            id="it waits because its number is being called",
        ),
        pytest.param(
            a_history(replace(a_row("created@0 expired@8"), expires_at=at(8)), until=at(400)),
            id="it has expired and never rang",
        ),
    ],
)
def test_a_right_history_is_accepted(history: History) -> None:
    assert violations(history) == []


def test_judge_shares_no_code_with_the_judged_system() -> None:
    tree = ast.parse(Path(judge.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not [name for name in imported if name.split(".")[0] in {"scheduler", "workers", "api_shim", "tests"}]
