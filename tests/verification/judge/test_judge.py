"""The judge rejects a wrong history of each kind, and accepts similar correct histories."""

import ast
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from uuid import UUID

import pytest

from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.support.builders import FOREVER
from tests.verification.judge import evidence, history, hours
from tests.verification.judge import violations as judge
from tests.verification.judge.history import (
    Claim,
    ClientRequest,
    ClientResponse,
    History,
    HistoryEntry,
    Patience,
    Ring,
    Row,
    Verb,
)
from tests.verification.judge.hours import WEEK, Hours, RingHours
from tests.verification.judge.violations import Wrong, violations

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
SUCCESSOR = a_row("created@5 claimed@20 answered@31", id=ANOTHER, first_seq=50)
GIVEN_BACK = a_row("created@0 claimed@10 deferred@11 claimed@16 answered@30")
GIVEN_UP = a_row("created@0 claimed@10 given_up@40")
ELSEWHERE, A_RETRY = UUID(int=9), UUID(int=5)
IN_FLIGHT = Patience(in_flight=timedelta(seconds=1))
NOT_APPLIED = asked(Verb.MOVE, 5, 202, due_at=at(3600))


def another(story: str, interview_id: UUID = ELSEWHERE) -> Row:
    return a_row(story, id=ANOTHER, first_seq=50, interview_id=interview_id)


def a_later_call(claimed: float, interview_id: UUID = ELSEWHERE) -> Row:
    return another(f"created@{claimed - 1} claimed@{claimed} answered@{claimed + 15}", interview_id)


def applied(request: ClientRequest, status: int, second: float) -> ClientRequest:
    return replace(request, applied=ClientResponse(status=status, at=at(second)))


def a_history(*attempts: Row, **more: object) -> History:
    usual: dict[str, object] = {"attempts": attempts, "until": at(60)}
    return History(**(usual | more))  # type: ignore[arg-type]


def a_call(*asked: ClientRequest, rang: float = 10.5, **more: object) -> History:
    """Build a history of one call, with these requests."""
    return a_history(CALLED, rings=(a_ring(rang),), asked=asked, **more)


def with_gaps(*attempts: Row, rings: tuple[Ring, ...]) -> History:
    """Build a history in which a number may be called again 100 seconds after a call."""
    return a_history(*attempts, rings=rings, until=at(999), patience=Patience(line_gap=timedelta(seconds=100)))


def within(closes: str = "20:00", second: float = 10.5, **more: object) -> History:
    """Build a history with calling hours from 08:00 in Bratislava, where it is 14:00 at the start."""
    usual: dict[str, object] = {"zones": ("Europe/Bratislava",), "consent_until": FOREVER, "says": NUMBER}
    its_hours = (Hours(days=WEEK, start="08:00", end=closes),)
    rung = RingHours(sid="a call", at=at(second), hours=its_hours, **(usual | more))  # type: ignore[arg-type]
    return a_history(CALLED, rings=(a_ring(second),), hours=(rung,))


WRONG = {
    Wrong.RANG_OUTSIDE: {
        "it rings at night in one of the zones": within(zones=("Europe/Bratislava", "Asia/Tokyo")),
        "it rings before the hours on the clock of its offset": within(zones=(), offset=timedelta(hours=-5)),
        "it may ring until after closing": within("14:01", 30),
        "it rings after the consent": within(consent_until=date(2026, 4, 1)),
    },
    Wrong.RANG_AFTER_DELETE: {
        "it rings after the 204 of its DELETE": a_call(asked(Verb.DELETE, 5, 204)),
        "it rings after an accepted DELETE was applied": a_call(applied(asked(Verb.DELETE, 5, 202), 204, 9)),
    },
    Wrong.RANG_WHILE_ACCEPTED: {
        "it rings after the 202 of a DELETE that is not applied": a_call(asked(Verb.DELETE, 5, 202)),
        "it rings between the 202 of a PATCH and its refusal": a_call(applied(NOT_APPLIED, 409, 12)),
    },
    Wrong.RANG_AFTER_REPLACED: {
        "it rings after the 201 of its replacement": a_call(asked(Verb.INVOKE, 5, 201, attempt_id=ANOTHER))
    },
    Wrong.RANG_EARLY: {
        "it rings before it was due": a_call(asked(Verb.CREATE, 0, 201, due_at=at(15))),
        "it rings at its time before the move": a_call(
            asked(Verb.CREATE, 0, 201, due_at=at(2)), asked(Verb.MOVE, 5, 204, due_at=at(20))
        ),
    },
    Wrong.RANG_TWICE: {
        "one claim rings twice": a_history(CALLED, rings=(a_ring(10.5), a_ring(21))),
        "a second claim rings after the first has rung": a_history(
            a_row("created@0 claimed@10 placed@11 claimed@16 answered@30"),
            rings=(a_ring(10.5, ended=12), a_ring(16.5, turn=1)),
        ),
    },
    Wrong.RANG_UNCLAIMED: {"it rings with an unknown token": a_history(WAITING, rings=(a_ring(5),))},
    Wrong.RANG_GIVEN_BACK: {"a returned claim rings": a_history(GIVEN_BACK, rings=(a_ring(10.5, ended=12),))},
    Wrong.RANG_WHILE_PAUSED: {
        "it is claimed while its company is paused": a_call(a_pause(Verb.PAUSE, 5)),
        "it was claimed before everything was paused and rings long after": a_call(
            replace(a_pause(Verb.PAUSE, 10.2), company_id=None), a_pause(Verb.RESUME, 40), rang=15, patience=IN_FLIGHT
        ),
    },
    Wrong.RANG_EXPIRED: {
        "it rings after its expiry": a_history(replace(CALLED, expires_at=at(8)), rings=(a_ring(10.5),))
    },
    Wrong.TWO_LEGS: {
        "two attempts ring one number at once": a_history(
            CALLED, another("created@0 claimed@12 answered@30"), rings=(a_ring(10.5), a_ring(12.5, of=ANOTHER))
        ),
        "two attempts of one line are in progress": a_history(
            a_row("created@0 claimed@10"), another("created@0 claimed@12")
        ),
    },
    Wrong.RANG_IN_GAP: {
        "another interview's call rings within the gap": with_gaps(
            CALLED, a_later_call(119), rings=(a_ring(10.5, ended=20), a_ring(119.5, of=ANOTHER))
        ),
        "a call rings within the gap after a retry": with_gaps(
            CALLED,
            a_row("created@21 claimed@22 answered@28", id=A_RETRY, first_seq=30),
            a_later_call(125),
            rings=(a_ring(10.5, ended=20), a_ring(22.5, of=A_RETRY, ended=27), a_ring(125.5, of=ANOTHER)),
        ),
        "a call of the same interview rings too soon after an unknown outcome": with_gaps(
            GIVEN_UP, a_later_call(139, INTERVIEW), rings=(a_ring(10.5, ended=20), a_ring(139.5, of=ANOTHER))
        ),
    },
    Wrong.LOST: {
        "it is due and free, and waits too long": a_history(WAITING, until=at(61)),
        "it waits although its command and pause are over": a_history(
            WAITING,
            until=at(400),
            asked=(applied(NOT_APPLIED, 409, 7), a_pause(Verb.PAUSE, 1), a_pause(Verb.RESUME, 9)),
        ),
        "it was claimed, never rang, and is not settled": a_history(a_row("created@0 claimed@10"), until=at(400)),
    },
    Wrong.UNEXPLAINED: {
        "its row and its history end differently": a_history(
            replace(CALLED, state="FAILED", reason="BUSY"), rings=(a_ring(10.5),)
        ),
        "a step of its history is missing": a_history(a_row("created@0 placed@11 answered@22")),
        "its epoch rose without an event": a_history(replace(WAITING, epoch=1)),
        "it was created twice": a_history(
            replace(CALLED, happenings=CALLED.happenings[:1] * 2 + CALLED.happenings[1:])
        ),
        "it was claimed without a token": a_history(replace(CALLED, claims=())),
        "it has no history": a_history(replace(WAITING, happenings=())),
    },
    Wrong.TWO_OPEN: {
        "an interview has two pending attempts": a_history(WAITING, another("created@5", INTERVIEW)),
        "an interview had two open attempts for a moment": a_history(
            a_row("created@0 claimed@10 answered@22"), a_row("created@5 cancelled@6", id=ANOTHER, first_seq=2)
        ),
    },
}


@pytest.mark.parametrize(
    ("kind", "history"),
    [pytest.param(kind, history, id=name) for kind, cases in WRONG.items() for name, history in cases.items()],
)
def test_a_wrong_history_is_rejected(kind: Wrong, history: History, postgres: EmbeddedPostgres) -> None:
    assert kind in {violation.kind for violation in violations(replace(history, clocks=postgres.url))}


def test_each_kind_of_violation_has_a_wrong_history() -> None:
    assert {kind for kind, cases in WRONG.items() if cases} == set(Wrong)


RIGHT = {
    "nothing happened": a_history(),
    "it rings within the hours": within(),
    "it rings just long enough before closing": within("14:01", 25.5),
    "it rings on the last day of the consent": within(consent_until=START.date()),
    "it rings, and late requests are refused": a_call(
        asked(Verb.CREATE, 0, 201, due_at=at(10)),
        asked(Verb.DELETE, 10.4, 409),
        asked(Verb.MOVE, 10.6, 409, due_at=at(3600)),
        asked(Verb.INVOKE, 11, 409, attempt_id=None),
    ),
    "it was deleted and never rang": a_history(
        a_row("created@0 cancelled@5 deleted@5"), asked=(asked(Verb.DELETE, 5, 204),), until=at(400)
    ),
    "it rang, and was deleted when it was over": a_call(asked(Verb.DELETE, 40, 204)),
    "it waits for a command that is not applied": a_history(WAITING, asked=(NOT_APPLIED,), until=at(4000)),
    "it rings after an accepted DELETE was refused": a_call(applied(asked(Verb.DELETE, 5, 202), 412, 9)),
    "it rings at its new, earlier time, before the client has the answer": a_call(
        asked(Verb.CREATE, 0, 201, due_at=at(3600)), asked(Verb.MOVE, 5, 204, took=8, due_at=at(10))
    ),
    "the last of several requested times counts": a_call(
        asked(Verb.MOVE, 1, 204, due_at=at(3600)),
        asked(Verb.MOVE, 4, 204, due_at=at(9)),
        asked(Verb.MOVE, 6, 409, due_at=at(7200)),
    ),
    "it was replaced, and its successor rings": a_history(
        a_row("created@0 replaced@5"),
        SUCCESSOR,
        rings=(a_ring(20.5, of=ANOTHER),),
        asked=(asked(Verb.INVOKE, 4, 201, attempt_id=ANOTHER),),
    ),
    "two calls of one interview follow each other": a_history(
        CALLED,
        replace(SUCCESSOR, happenings=a_row("created@40 claimed@41 answered@52", first_seq=50).happenings),
        rings=(a_ring(10.5), a_ring(41.5, of=ANOTHER)),
        asked=(asked(Verb.INVOKE, 39, 201, attempt_id=ANOTHER),),
    ),
    "it was returned unsent, and its second claim rings": a_history(GIVEN_BACK, rings=(a_ring(16.5, turn=1),)),
    "the carrier never dialled it, and its second claim rings": a_history(
        a_row("created@0 claimed@10 placed@11 never_dialled@13 claimed@16 answered@30"),
        rings=(replace(a_ring(10.5, ended=12), rang_at=None), a_ring(16.5, turn=1)),
    ),
    "it rings between two pauses": a_call(a_pause(Verb.PAUSE, 1), a_pause(Verb.RESUME, 4), a_pause(Verb.PAUSE, 15)),
    "it was in flight when its company was paused": a_call(a_pause(Verb.PAUSE, 10.2), rang=11.5, patience=IN_FLIGHT),
    "another interview's call rings after the gap": with_gaps(
        CALLED, a_later_call(120), rings=(a_ring(10.5, ended=20), a_ring(120, of=ANOTHER))
    ),
    "a retry of the same interview does not wait for the gap": with_gaps(
        CALLED, a_later_call(24, INTERVIEW), rings=(a_ring(10.5, ended=20), a_ring(24.5, of=ANOTHER))
    ),
    "a call rings after the gap that follows an unknown outcome": with_gaps(
        GIVEN_UP, a_later_call(140, INTERVIEW), rings=(a_ring(10.5, ended=45), a_ring(140, of=ANOTHER))
    ),
    "it waits because everything is paused": a_history(
        WAITING, asked=(replace(a_pause(Verb.PAUSE, 5), company_id=None),), until=at(4000)
    ),
    "it waits because its number is being called": a_history(
        CALLED, another("created@0"), rings=(a_ring(10.5, ended=3000),), until=at(400)
    ),
    "it has expired and never rang": a_history(replace(a_row("created@0 expired@8"), expires_at=at(8)), until=at(400)),
}


@pytest.mark.parametrize("history", RIGHT.values(), ids=RIGHT)
def test_a_right_history_is_accepted(history: History, postgres: EmbeddedPostgres) -> None:
    assert violations(replace(history, clocks=postgres.url)) == []


@pytest.mark.parametrize("module", [evidence, history, hours, judge])
def test_judge_shares_no_code_with_the_judged_system(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    ours = {"scheduler", "workers", "api_shim", "console", "standalone", "command_line", "tests"}
    assert not [
        name for name in imported if name.split(".")[0] in ours and not name.startswith("tests.verification.judge.")
    ]
