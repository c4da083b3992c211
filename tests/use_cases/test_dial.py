"""Claims, last looks and records of a dial."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from threading import Barrier
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text

from scheduler.domain.attempt import AnswerLost, Attempt, AttemptState, Cancelled, HangUpCause, Phase, Placed, Reason
from scheduler.domain.call import Accepted, AnswerUnknown, CarrierAnswer, MachineDetection, NeverTaken, NumberRefused
from scheduler.domain.company import CallLimits
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle.breaker import BACK_OFF
from scheduler.lifecycle.capacity import in_step
from scheduler.lifecycle.policy import DEFERRED_DELAY, SEND_SPAN
from scheduler.persistence.database import Database
from scheduler.rules.tallies import Sent
from scheduler.use_cases.dialling.claim import ClaimInDoubt
from scheduler.use_cases.dialling.record import SomeHeld
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed, wait_until
from tests.support.builders import (
    Tenant,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_sid,
    a_waiting_command,
    an_attempt_of_unknown_outcome,
    of_company,
)
from tests.support.servers import wired
from tests.support.statements import statements_of
from tests.use_cases.conftest import (
    ACCOUNT_LOCK,
    PAUSED,
    an_ended_attempt,
    claim_behind,
    claimed,
    is_claimed,
    pause_reason,
    with_account,
)

A_MOMENT = timedelta(microseconds=1)
A_DAY = timedelta(days=1)
OTHER_ACCOUNT = "AC" + "1" * 32


# ---- the claim: effects


def test_claimed_attempt_has_a_lease_a_token_and_its_line(tenant: Tenant) -> None:
    number = a_number()
    pending = a_pending_attempt(tenant, number)
    [mine] = claimed(tenant, pending)
    assert tenant.attempt(pending.id) == mine
    assert (mine.state, mine.phase, mine.epoch) == (AttemptState.IN_PROGRESS, Phase.DIALLING, 1)
    assert (mine.claimed_at, mine.lease_until) == (tenant.now(), tenant.now() + tenant.policy.lease)
    assert (mine.called_number, tenant.line(pending)[0]) == (number, pending.id)
    assert tenant.history(pending.id) == ["created", "claimed"]


def test_each_claim_has_a_new_token_and_old_tokens_stay_known(tenant: Tenant, now: TestClock) -> None:
    first = a_claimed_attempt(tenant)
    tenant.dial.record([(first, NeverTaken(cause="A_TEST"))])
    now.move(BACK_OFF[0])
    [second] = claimed(tenant, first)
    assert first.token != second.token
    with tenant.database.transaction() as stores:
        for token in (first.token, second.token):
            assert token is not None
            claim = stores.carrier_events.claim_of(token)
            assert claim is not None
            assert (claim.attempt_id, claim.interview_id) == (first.id, first.interview_id)


def test_claim_that_waited_for_the_account_uses_no_past_slot(tenant: Tenant, now: TestClock, postgres_url: str) -> None:
    """The slots that pass during a wait would all be used at once, faster than the account may call."""
    pending = a_pending_attempt(tenant)
    claims = claim_behind(
        ACCOUNT_LOCK, tenant.dial, tenant, postgres_url, pending, lambda: now.move(timedelta(seconds=1))
    )
    [mine] = claims.claimed
    assert mine.send_at == mine.attempt.claimed_at == now()


@pytest.fixture
def slow_commits(postgres_url: str) -> Iterator[None]:
    """Let the commits of claims wait for an advisory lock, like those that wait for a disk or a standby."""
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute(
            "CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$"
        )
        owner.execute(
            "CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON attempt_tokens"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow_commit()"
        )
        yield
        owner.execute("DROP FUNCTION slow_commit CASCADE")


@pytest.mark.parametrize("table", ["carrier_accounts", "companies"])
@pytest.mark.parametrize(
    "lock",
    [
        pytest.param("SELECT pg_advisory_xact_lock(1)", id="a slow commit"),
        pytest.param("LOCK TABLE lines", id="a locked table"),
    ],
)
def test_claim_that_came_late_moves_the_next_slot(
    tenant: Tenant, now: TestClock, postgres_url: str, slow_commits: None, lock: str, table: str
) -> None:
    """Its calls are shifted (`in_step`), and the next ones were started 0.1 s later at a pace of one a second."""
    tenant.change(f"UPDATE {table} SET calls_per_second = 1")
    first, second = a_pending_attempt(tenant), a_pending_attempt(tenant)
    dial, late = tenant.dial, timedelta(seconds=0.9)
    [mine] = claim_behind(lock, dial, tenant, postgres_url, first, lambda: now.move(late)).claimed
    assert in_step([mine.send_at], now()) == [now()]
    assert dial.claim([second.id]).claimed == ()
    now.move(timedelta(seconds=0.2))
    [following] = dial.claim([second.id]).claimed
    assert following.send_at == mine.send_at + late + timedelta(seconds=1)


def test_unknown_ids_are_not_claimed(tenant: Tenant) -> None:
    assert tenant.dial.claim([]).claimed == ()
    assert tenant.dial.claim([uuid4()]).claimed == ()


def in_doubt(tenant: Tenant, postgres_url: str, pending: Attempt, *, committed: bool) -> Attempt:
    """Find the claim in doubt after the connection broke after, or instead of, its commit."""
    with wired(postgres_url) as (wire, url):
        over_it = replace(tenant, database=Database(url))
        assert over_it.database.clock_is_right()
        setattr(wire, "cut_after" if committed else "cut_before", lambda sent: b"COMMIT" in sent)
        with pytest.raises(ClaimInDoubt) as doubt:
            over_it.dial.claim([pending.id])
        over_it.database.close()
    [claim] = doubt.value.claimed
    return claim.attempt


@guards("claim_in_doubt")
def test_claim_in_doubt_is_given_back_if_it_was_committed(tenant: Tenant, postgres_url: str) -> None:
    mine = in_doubt(tenant, postgres_url, a_pending_attempt(tenant), committed=True)
    assert tenant.attempt(mine.id) == mine
    tenant.dial.record([(mine, NeverTaken(cause="NOT_SENT"))])
    assert tenant.attempt(mine.id).state is AttemptState.PENDING


@guards("claim_in_doubt", "token")
def test_claim_in_doubt_leaves_the_claim_of_another_worker(tenant: Tenant, postgres_url: str) -> None:
    mine = in_doubt(tenant, postgres_url, pending := a_pending_attempt(tenant), committed=False)
    wait_until(lambda: is_claimed(tenant, pending), says="the broken transaction's locks are gone")
    theirs = tenant.attempt(pending.id)
    assert theirs.epoch == mine.epoch
    tenant.dial.record([(mine, NeverTaken(cause="NOT_SENT"))])
    assert tenant.attempt(pending.id) == theirs


def as_in(table: str) -> bytes:
    """The columns that a claim writes, in the order of this table."""
    names = ("state", "phase", "epoch", "token", "claimed_at", "lease_until", "called_number")
    changes = ", ".join(f"{name} = kept.{name}" for name in names)
    return f"UPDATE attempts SET {changes} FROM {table} kept WHERE kept.id = attempts.id".encode()


def test_claim_in_doubt_is_given_back_after_a_late_commit(tenant: Tenant, postgres_url: str) -> None:
    """The connection was lost while PostgreSQL was writing the claim, or waited for a standby."""
    pending = a_pending_attempt(tenant)
    with psycopg.connect(postgres_url) as server:
        server.execute("CREATE TEMP TABLE pending AS SELECT * FROM attempts")
        [mine] = claimed(tenant, pending)
        server.execute("CREATE TEMP TABLE claim AS SELECT * FROM attempts")
        server.execute(as_in("pending"))
        server.commit()
        server.execute(as_in("claim"))
        with pytest.raises(SomeHeld):
            tenant.dial.record([(mine, NeverTaken(cause="NOT_SENT"))])
        server.commit()
        tenant.dial.record([(mine, NeverTaken(cause="NOT_SENT"))])
    assert tenant.attempt(mine.id).state is AttemptState.PENDING
    assert tenant.line(mine)[0] is None


# ---- the claim: its guards


def cancelled(tenant: Tenant) -> Attempt:
    return tenant.take(a_pending_attempt(tenant), Cancelled(reason=Reason.CANCELLED_BY_USER))


@guards("state")
@pytest.mark.parametrize("builder", [an_ended_attempt, cancelled])
def test_attempt_that_is_over_is_not_claimed(tenant: Tenant, builder: Callable[[Tenant], Attempt]) -> None:
    over = builder(tenant)
    assert tenant.line(over)[0] is None
    assert not is_claimed(tenant, over)
    assert tenant.attempt(over.id) == over


@guards("expires_at")
def test_attempt_is_claimed_until_it_expires(tenant: Tenant) -> None:
    assert is_claimed(tenant, a_pending_attempt(tenant, expires_at=tenant.now() + A_MOMENT))
    assert not is_claimed(tenant, a_pending_attempt(tenant, expires_at=tenant.now()))


@guards("line")
def test_attempt_to_a_busy_number_of_any_company_is_not_claimed(tenant: Tenant, other: Tenant) -> None:
    number = a_number()
    a_claimed_attempt(other, number)
    for each in (other, tenant):
        assert not is_claimed(each, a_pending_attempt(each, number))


@guards("line_gap")
def test_another_interview_waits_for_the_gap_after_a_call(tenant: Tenant, now: TestClock) -> None:
    number = a_number()
    an_ended_attempt(tenant, number)
    waiting = a_pending_attempt(tenant, number)
    now.move(tenant.policy.line_gap - A_MOMENT)
    assert not is_claimed(tenant, waiting)
    now.move(A_MOMENT)
    assert is_claimed(tenant, waiting)


def test_same_interview_does_not_wait_for_the_gap(tenant: Tenant) -> None:
    number = a_number()
    over = an_ended_attempt(tenant, number)
    assert is_claimed(tenant, a_pending_attempt(tenant, number, interview_id=over.interview_id))


@guards("line_gap")
def test_same_interview_waits_after_an_unknown_outcome(tenant: Tenant, now: TestClock) -> None:
    number = a_number()
    over = an_attempt_of_unknown_outcome(tenant, number)
    again = a_pending_attempt(tenant, number, interview_id=over.interview_id)
    assert not is_claimed(tenant, again)
    now.move(tenant.policy.line_gap)
    assert is_claimed(tenant, again)


@guards("one_per_number")
def test_only_the_earliest_due_attempt_to_a_number_is_claimed(tenant: Tenant) -> None:
    number = a_number()
    later = a_pending_attempt(tenant, number, due_at=tenant.now())
    earlier = a_pending_attempt(tenant, number, due_at=tenant.now() - A_MOMENT)
    assert [each.id for each in claimed(tenant, later, earlier)] == [earlier.id]
    assert tenant.attempt(later.id).state is AttemptState.PENDING


def test_invoked_attempt_is_claimed_before_a_retry(tenant: Tenant) -> None:
    retry = a_pending_attempt(tenant, manual=False, due_at=tenant.now() - timedelta(hours=1))
    asked = a_pending_attempt(tenant, manual=True)
    assert [each.id for each in claimed(tenant, retry, asked)] == [asked.id, retry.id]


@guards("command_waiting")
def test_waiting_command_blocks_only_its_interview(tenant: Tenant) -> None:
    held, free = a_pending_attempt(tenant), a_pending_attempt(tenant)
    command = a_waiting_command(tenant, held.interview_id)
    assert [each.id for each in claimed(tenant, held, free)] == [free.id]
    tenant.change(
        "UPDATE inbox SET applied_at = :at, answer = '{}', body = NULL WHERE id = :id", at=tenant.now(), id=command.id
    )
    assert is_claimed(tenant, held)


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param("companies SET deleted_at = :at", id="the company is deleted", marks=guards("company_deleted")),
        pytest.param(f"carrier_accounts SET {PAUSED}", id="the account is paused", marks=guards("account_paused")),
    ],
)
def test_nothing_is_claimed_while(tenant: Tenant, stop: str) -> None:
    attempt = a_pending_attempt(tenant)
    tenant.change(f"UPDATE {stop}", at=tenant.now())
    assert not is_claimed(tenant, attempt)
    assert tenant.attempt(attempt.id) == attempt


@guards("company_paused")
def test_paused_company_does_not_delay_another(tenant: Tenant, other: Tenant) -> None:
    paused, alive = a_pending_attempt(tenant), a_pending_attempt(other)
    with tenant.database.transaction() as stores:
        stores.companies.pause(tenant.company_id, "a test", tenant.now())
    assert [each.id for each in claimed(tenant, paused, alive)] == [alive.id]


@pytest.mark.parametrize(
    "held",
    [
        pytest.param("SELECT FROM attempts WHERE id = :id FOR UPDATE", id="the attempt"),
        pytest.param(
            "SELECT FROM lines l JOIN attempts a ON a.number_hash = l.number_hash WHERE a.id = :id FOR UPDATE OF l",
            id="its line",
        ),
    ],
)
def test_row_locked_by_another_worker_is_claimed_once_released(tenant: Tenant, held: str) -> None:
    busy, free = a_pending_attempt(tenant), a_pending_attempt(tenant)
    with tenant.database.transaction() as stores:
        stores.connection.execute(text(held), {"id": busy.id})
        claims = tenant.dial.claim([busy.id, free.id])
        assert [each.attempt.id for each in claims.claimed] == [free.id]
        assert (claims.waiting, claims.try_again_at) == (frozenset({busy.id}), None)
    assert is_claimed(tenant, busy)


@pytest.mark.parametrize(
    "meanwhile",
    [
        pytest.param("UPDATE attempts SET due_at = :at + interval '1 hour'", id="it was moved"),
        pytest.param("UPDATE attempts SET expires_at = :at", id="it has expired"),
        pytest.param("UPDATE lines SET free_at = :at + interval '1 hour'", id="its line rests"),
    ],
)
def test_unclaimable_hint_is_dropped(tenant: Tenant, meanwhile: str) -> None:
    attempt, other = a_pending_attempt(tenant), a_claimed_attempt(tenant)
    tenant.change(meanwhile, at=tenant.now())
    assert tenant.dial.claim([attempt.id, other.id]).waiting == frozenset()


# ---- the claim: pace and room


def limited(tenant: Tenant, *, concurrent_calls: int = 1000, calls_per_second: float = 1000.0) -> Tenant:
    """Create another company, with limits of its own."""
    limits = CallLimits(concurrent_calls=concurrent_calls, calls_per_second=calls_per_second)
    return of_company(tenant, seed(tenant.database, tenant.now(), limits=limits))


@pytest.mark.parametrize("per_second", [1, 5])
@guards("account_pace")
def test_claim_takes_only_calls_that_can_be_sent_within_a_second(
    tenant: Tenant, now: TestClock, per_second: int
) -> None:
    slow = with_account(tenant, OTHER_ACCOUNT, calls_per_second=per_second)
    ids = {a_pending_attempt(slow).id for _ in range(2 * per_second + 1)}
    sent = []
    for batch in (per_second, per_second, 1):
        claims = slow.dial.claim(list(ids))
        assert len(claims.claimed) == batch
        assert all(now() <= each.send_at < now() + SEND_SPAN for each in claims.claimed)
        ids -= {each.attempt.id for each in claims.claimed}
        assert claims.waiting == ids, "an attempt without a place waits in memory"
        sent += [each.send_at for each in claims.claimed]
        assert slow.dial.claim(list(ids)).claimed == (), "nor are they by asking again"
        now.move(SEND_SPAN)
    assert all(later - earlier >= timedelta(seconds=1 / per_second) for earlier, later in pairwise(sent))


def test_company_is_not_full_if_only_the_account_is(tenant: Tenant) -> None:
    """Else calls hinted later would take its places, one after the other."""
    slow = with_account(tenant, OTHER_ACCOUNT, calls_per_second=0.5)
    claims = slow.dial.claim([a_pending_attempt(slow).id for _ in range(2)])
    assert len(claims.unplaced) == 1
    assert claims.unplaced == claims.waiting
    assert claims.full == frozenset()
    assert claims.account_free_at is not None


def test_company_at_its_own_limit_is_full(tenant: Tenant) -> None:
    small = limited(tenant, concurrent_calls=1, calls_per_second=1.0)
    claims = tenant.dial.claim([a_pending_attempt(small).id for _ in range(2)])
    assert claims.unplaced == claims.waiting != frozenset()
    assert claims.full == {small.company_id}
    assert claims.account_free_at is None


@guards("account_pace")
def test_waiting_attempts_come_with_a_time_to_try_again(tenant: Tenant, now: TestClock) -> None:
    slow = with_account(tenant, OTHER_ACCOUNT, calls_per_second=0.5)
    ids = [a_pending_attempt(slow).id for _ in range(2)]
    first = slow.dial.claim(ids)
    assert first.try_again_at == now() + timedelta(seconds=1)
    now.move(timedelta(seconds=1) + A_MOMENT)
    assert len(slow.dial.claim(list(first.waiting)).claimed) == 1


@guards("account_room")
def test_account_keeps_its_limit_of_concurrent_calls(tenant: Tenant) -> None:
    small = with_account(tenant, OTHER_ACCOUNT, max_calls=2)
    attempts = [a_pending_attempt(limited(small)) for _ in range(3)]
    mine = claimed(small, *attempts)
    assert len(mine) == 2
    [left] = [each for each in attempts if each.id not in {one.id for one in mine}]
    assert not is_claimed(small, left)
    small.dial.record([(mine[0], NumberRefused(cause="A_TEST"))])
    assert is_claimed(small, left)


@guards("kept_places")
def test_last_places_are_kept_for_other_companies(tenant: Tenant) -> None:
    """One company holds all places but the tenth that is kept, for as long as its calls last."""
    small = with_account(tenant, OTHER_ACCOUNT, max_calls=10)
    mine = claimed(small, *[a_pending_attempt(small) for _ in range(10)])
    assert len(mine) == 9
    waiting, other = a_pending_attempt(small), a_pending_attempt(limited(small))
    alone = small.dial.claim([waiting.id])
    assert alone.claimed == ()
    assert alone.full == {small.company_id}, "it waits in memory, and takes no turn of others"
    assert [each.attempt.id for each in small.dial.claim([waiting.id, other.id]).claimed] == [other.id]


def test_trial_is_made_by_a_company_with_calls(tenant: Tenant) -> None:
    """While the breaker is half-open there is room for one call, and other places are free."""
    half_open = with_account(tenant, OTHER_ACCOUNT, max_calls=10)
    [mine] = claimed(half_open, a_pending_attempt(half_open))
    half_open.dial.record([(mine, Accepted(call_sid=a_sid()))])
    half_open.change(
        "UPDATE carrier_accounts SET failures = 5, down_until = :at, answered_at = :at WHERE id = :id",
        at=tenant.now(),
        id=half_open.account_id,
    )
    assert len(claimed(half_open, a_pending_attempt(half_open))) == 1


@guards("company_room")
def test_company_at_its_concurrency_limit_delays_no_other(tenant: Tenant) -> None:
    small = limited(tenant, concurrent_calls=1)
    of_small = [a_pending_attempt(small) for _ in range(2)]
    of_other = [a_pending_attempt(tenant) for _ in range(2)]
    mine = claimed(tenant, *of_small, *of_other)
    assert sorted(each.company_id == small.company_id for each in mine) == [False, False, True]


@guards("company_pace")
def test_company_at_its_rate_limit_delays_no_other(tenant: Tenant, now: TestClock) -> None:
    slow = limited(tenant, calls_per_second=1.0)
    of_slow = [a_pending_attempt(slow) for _ in range(2)]
    mine = claimed(tenant, *of_slow, a_pending_attempt(tenant))
    assert sorted(each.company_id == slow.company_id for each in mine) == [False, True]
    [left] = [each for each in of_slow if each.id not in {one.id for one in mine}]
    assert not is_claimed(tenant, left)
    now.move(timedelta(seconds=1))
    assert is_claimed(tenant, left)


def test_concurrent_diallers_claim_each_attempt_once(tenant: Tenant) -> None:
    attempts = [a_pending_attempt(tenant).id for _ in range(40)]
    at_once = Barrier(6)

    def claim_all(_: int) -> list[Attempt]:
        at_once.wait()
        return [each.attempt for each in tenant.dial.claim(attempts).claimed]

    with ThreadPoolExecutor(6) as pool:
        mine = [each for batch in pool.map(claim_all, range(6)) for each in batch]
    assert sorted(each.id for each in mine) == sorted(attempts)
    assert {each.epoch for each in mine} == {1}


# ---- the last look


def test_last_look_without_a_block_returns_the_order(tenant: Tenant) -> None:
    number = a_number()
    mine = a_claimed_attempt(tenant, number)
    order = tenant.dial.last_look(mine)
    assert order is not None
    assert (order.to, order.caller, order.token) == (number, tenant.caller, mine.token)
    assert order.ring_timeout == tenant.policy.ring_timeout
    assert order.time_limit == timedelta(minutes=12), "the agent's duration and two minutes"
    assert order.machine_detection is MachineDetection.SYNC
    assert tenant.attempt(mine.id) == mine, "and writes nothing"


def given_back(tenant: Tenant, mine: Attempt) -> Attempt:
    """The attempt after a last look that forbids the call."""
    assert tenant.dial.last_look(mine) is None
    back = tenant.attempt(mine.id)
    assert (back.state, back.phase, back.lease_until, back.claimed_at) == (AttemptState.PENDING, None, None, None)
    assert tenant.line(mine)[0] is None, "its line is free"
    assert tenant.line(mine)[2] <= tenant.now(), "as free as it was"
    return back


def cause(tenant: Tenant, attempt: Attempt) -> str:
    """Return the cause of the deferral."""
    rows = tenant.ask(
        "SELECT detail ->> 'cause' FROM attempt_history WHERE attempt_id = :id AND event = 'deferred'",
        id=attempt.id,
    )
    return str(rows[-1][0])


@guards("window")
def test_closed_window_defers_to_the_next_opening(tenant: Tenant, now: TestClock) -> None:
    # 19:59:10 in Bratislava: room for 35 s of ringing and 15 s more.
    now.instant = now().replace(hour=17, minute=59, second=10)
    mine = a_claimed_attempt(tenant)
    assert tenant.dial.last_look(mine) is not None
    now.move(timedelta(seconds=15))
    back = given_back(tenant, mine)
    assert (cause(tenant, back), back.due_at) == ("WINDOW_CLOSED", now().replace(hour=6, minute=0, second=0) + A_DAY)


@pytest.mark.parametrize(
    ("meanwhile", "why", "delay"),
    [
        pytest.param(f"companies SET {PAUSED}", "COMPANY_PAUSED", DEFERRED_DELAY, id="company paused"),
        pytest.param(f"carrier_accounts SET {PAUSED}", "ACCOUNT_PAUSED", DEFERRED_DELAY, id="account paused"),
        pytest.param(
            "candidates SET phone_number = '+421915999999'", "NUMBER_BUSY", DEFERRED_DELAY, id="another number"
        ),
        pytest.param("candidates SET phone_number = '+99912345678'", "NUMBER_MISSING", A_DAY, id="an invalid number"),
        pytest.param(
            "candidates SET phone_number = NULL, email = 'a@b.c'", "NUMBER_MISSING", A_DAY, id="no number left"
        ),
        pytest.param("attempts SET due_at = :at + interval '1 day'", "NOT_DUE", A_DAY, id="moved to tomorrow"),
        pytest.param(
            "candidates SET timezone = 'Atlantis/Poseidonis'", "TIMEZONE_UNKNOWN", A_DAY, id="an unknown zone"
        ),
    ],
)
def test_last_look_defers_the_attempt_after(tenant: Tenant, meanwhile: str, why: str, delay: timedelta) -> None:
    mine = a_claimed_attempt(tenant)
    tenant.change(f"UPDATE {meanwhile}, updated_at = :at", at=tenant.now())
    back = given_back(tenant, mine)
    assert (cause(tenant, back), back.due_at) == (why, tenant.now() + delay)


def test_company_deleted_since_the_claim_ends_the_attempt(tenant: Tenant) -> None:
    mine = a_claimed_attempt(tenant)
    tenant.change("UPDATE companies SET deleted_at = :at", at=tenant.now())
    assert tenant.dial.last_look(mine) is None
    ended = tenant.attempt(mine.id)
    assert cause(tenant, ended) == "COMPANY_DELETED"
    assert (ended.state, ended.reason) == (AttemptState.CANCELLED, Reason.COMPANY_DELETED)
    assert tenant.line(mine)[0] is None


def test_attempt_to_a_country_no_longer_allowed_is_held(tenant: Tenant) -> None:
    mine, other = a_claimed_attempt(tenant), a_claimed_attempt(tenant)
    tenant.change("""UPDATE companies SET settings = settings || '{"allowedCountries": ["CZ"]}'""")
    back = given_back(tenant, mine)
    assert (cause(tenant, back), back.due_at) == ("NUMBER_NOT_ALLOWED", tenant.now() + A_DAY)
    tenant.change("""UPDATE companies SET settings = settings || '{"allowedCountries": ["CZ", "SK"]}'""")
    assert tenant.dial.last_look(other) is not None


@guards("look_command")
def test_command_accepted_since_the_claim_gives_back(tenant: Tenant) -> None:
    mine = a_claimed_attempt(tenant)
    a_waiting_command(tenant, mine.interview_id)
    assert cause(tenant, given_back(tenant, mine)) == "COMMAND_WAITING"


def test_attempt_that_expires_between_claim_and_look_ends(tenant: Tenant, now: TestClock) -> None:
    mine = a_claimed_attempt(tenant, expires_at=now() + timedelta(seconds=1))
    now.move(timedelta(seconds=1))
    assert tenant.dial.last_look(mine) is None
    assert tenant.attempt(mine.id).reason is Reason.EXPIRED
    assert tenant.line(mine)[0] is None
    assert tenant.interview_status(mine) is InterviewStatus.FAILED


@guards("consent")
def test_candidate_is_not_called_after_the_last_day_of_consent(tenant: Tenant) -> None:
    mine = a_claimed_attempt(tenant, consent_until=date(2026, 4, 1))
    assert tenant.dial.last_look(mine) is None
    assert tenant.attempt(mine.id).reason is Reason.CONSENT_EXPIRED


@pytest.fixture
def with_clock(tenant: Tenant, postgres_url: str) -> Iterator[Callable[[str], Tenant]]:
    """The tenant in a database whose clock is that much ahead of this machine's."""
    made = []
    with psycopg.connect(postgres_url, autocommit=True) as connection:

        def ahead(interval: str) -> Tenant:
            connection.execute(
                "CREATE OR REPLACE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS"
                f" 'SELECT pg_catalog.clock_timestamp() + interval ''{interval}'''".encode()
            )
            connection.execute("ALTER ROLE CURRENT_USER SET search_path = public, pg_catalog")
            made.append(Database(postgres_url))
            return replace(tenant, database=made[-1])

        yield ahead
        for database in made:
            database.close()
        connection.execute("ALTER ROLE CURRENT_USER RESET search_path")
        connection.execute("DROP FUNCTION IF EXISTS public.clock_timestamp()")


@guards("look_clock")
def test_database_with_a_wrong_clock_permits_no_call(tenant: Tenant, with_clock: Callable[[str], Tenant]) -> None:
    assert with_clock("1 second").dial.last_look(a_claimed_attempt(tenant)) is not None, "slightly off"
    mine = a_claimed_attempt(tenant)
    assert with_clock("3 seconds").dial.last_look(mine) is None
    assert cause(tenant, mine) == "CLOCK_SKEW"


@guards("look_lease")
def test_look_after_the_lease_sends_and_writes_nothing(tenant: Tenant, now: TestClock) -> None:
    mine = a_claimed_attempt(tenant)
    now.move(tenant.policy.lease)
    assert tenant.dial.last_look(mine) is None
    assert tenant.attempt(mine.id) == mine


@guards("look_epoch")
def test_new_claim_is_not_sent_by_the_former_dialler(tenant: Tenant, now: TestClock) -> None:
    old = a_claimed_attempt(tenant)
    tenant.dial.give_back(old, "A_TEST")
    now.move(DEFERRED_DELAY)
    [new] = claimed(tenant, old)
    assert tenant.dial.last_look(old) is None
    assert tenant.dial.last_look(new) is not None


# ---- the record


def test_accepted_call_is_placed_and_keeps_its_line(tenant: Tenant) -> None:
    mine, sid = a_claimed_attempt(tenant), a_sid()
    tenant.dial.record([(mine, Accepted(call_sid=sid))])
    placed = tenant.attempt(mine.id)
    assert (placed.phase, placed.call_sid, placed.lease_until) == (Phase.PLACED, sid, None)
    assert placed.look_at == tenant.now() + tenant.policy.ring_timeout + timedelta(seconds=15)
    assert tenant.line(mine)[0] == mine.id


def test_call_never_taken_is_pending_again_without_a_retry(tenant: Tenant, now: TestClock) -> None:
    mine = a_claimed_attempt(tenant)
    tenant.dial.record([(mine, NeverTaken(cause="THROTTLED"))])
    back = tenant.attempt(mine.id)
    assert (back.state, back.due_at) == (AttemptState.PENDING, now() + BACK_OFF[0])
    assert (back.not_placed, back.retry_number) == (1, 0)
    assert tenant.line(mine)[0] is None
    assert not is_claimed(tenant, back)
    now.move(BACK_OFF[0])
    assert is_claimed(tenant, back)


def test_refused_number_ends_the_interview_without_a_gap(tenant: Tenant) -> None:
    number = a_number()
    mine = a_claimed_attempt(tenant, number)
    tenant.dial.record([(mine, NumberRefused(cause="TWILIO_21211"))])
    assert tenant.attempt(mine.id).reason is Reason.INVALID_NUMBER
    assert tenant.interview_status(mine) is InterviewStatus.FAILED
    assert is_claimed(tenant, a_pending_attempt(tenant, number)), "no call was placed"


def test_lost_answer_is_unknown_and_never_dialled_again(tenant: Tenant, now: TestClock) -> None:
    mine = a_claimed_attempt(tenant)
    tenant.dial.record([(mine, AnswerUnknown(cause="A_TEST"))])
    unknown = tenant.attempt(mine.id)
    assert (unknown.phase, unknown.unknown_at, unknown.look_at) == (Phase.UNKNOWN, now(), now())
    assert (unknown.epoch, tenant.line(mine)[0]) == (mine.epoch + 1, mine.id)
    now.move(A_DAY)
    assert not is_claimed(tenant, unknown)


ANSWERS = [
    pytest.param(Accepted(call_sid=a_sid()), id="accepted"),
    pytest.param(NeverTaken(cause="A_TEST"), id="never taken"),
    pytest.param(NumberRefused(cause="A_TEST"), id="number refused"),
    pytest.param(AnswerUnknown(cause="A_TEST"), id="unknown"),
]


@pytest.mark.parametrize("answer", ANSWERS)
@guards("record_epoch")
def test_record_after_settling_writes_nothing(tenant: Tenant, answer: CarrierAnswer) -> None:
    mine = a_claimed_attempt(tenant)
    settled = tenant.take(mine, AnswerLost(look_at=tenant.now(), cause="LEASE_OVER"))
    tenant.dial.record([(mine, answer)])
    assert tenant.attempt(mine.id) == settled
    assert tenant.history(mine.id) == ["created", "claimed", "answer_lost"]


@pytest.mark.parametrize("answer", ANSWERS)
def test_record_of_an_older_claim_leaves_the_newer_one(tenant: Tenant, now: TestClock, answer: CarrierAnswer) -> None:
    old = a_claimed_attempt(tenant)
    tenant.dial.give_back(old, "A_TEST")
    now.move(DEFERRED_DELAY)
    [new] = claimed(tenant, old)
    tenant.dial.record([(old, answer)])
    assert tenant.attempt(new.id) == new
    assert tenant.line(new)[0] == new.id


def test_stale_record_does_not_spoil_the_rest_of_its_group(tenant: Tenant) -> None:
    stale, fresh = a_claimed_attempt(tenant), a_claimed_attempt(tenant)
    tenant.take(stale, AnswerLost(look_at=tenant.now(), cause="LEASE_OVER"))
    tenant.dial.record([(stale, Accepted(call_sid=a_sid())), (fresh, Accepted(call_sid=a_sid()))])
    assert tenant.attempt(stale.id).phase is Phase.UNKNOWN
    assert tenant.attempt(fresh.id).phase is Phase.PLACED


def test_late_record_of_another_call_pauses_the_company(tenant: Tenant) -> None:
    mine = a_claimed_attempt(tenant)
    heard = tenant.take(mine, Placed(call_sid=a_sid(), look_at=tenant.now()))
    tenant.dial.record([(mine, Accepted(call_sid=a_sid()))])
    assert tenant.attempt(mine.id) == heard
    assert pause_reason(tenant) == "ALARM: TWO_CALLS_FOR_ONE_TOKEN"


def test_late_record_of_the_same_call_pauses_no_company(tenant: Tenant) -> None:
    mine, sid = a_claimed_attempt(tenant), a_sid()
    heard = tenant.take(mine, Placed(call_sid=sid, look_at=tenant.now()))
    tenant.dial.record([(mine, Accepted(call_sid=sid))])
    assert tenant.attempt(mine.id) == heard
    assert pause_reason(tenant) is None


def test_late_records_of_their_calls_cost_no_statement_each(tenant: Tenant) -> None:
    def statements(count: int) -> int:
        answers = [(a_claimed_attempt(tenant), Accepted(call_sid=a_sid())) for _ in range(count)]
        looks = {each.id: Sent(lateness=timedelta(), answered_after=0.0, look={"form": 1}) for each, _ in answers}
        for each, answer in answers:
            tenant.take(each, Placed(call_sid=answer.call_sid, look_at=tenant.now()))
        with statements_of(tenant.database) as sent:
            tenant.dial.record(answers, looks)
        return len(sent)

    assert statements(3) == statements(1)


def test_late_record_of_a_queued_call_stores_its_cancellation(tenant: Tenant) -> None:
    mine, sid = a_claimed_attempt(tenant), a_sid()
    tenant.take(mine, Placed(call_sid=sid, look_at=tenant.now()))
    assert tenant.dial.record([(mine, Accepted(call_sid=sid, queue_time=timedelta(hours=9)))]) == [sid]
    assert tenant.attempt(mine.id).hang_up is HangUpCause.QUEUED_PAST_CLOSING


def test_company_with_unreadable_settings_delays_no_other(tenant: Tenant, other: Tenant) -> None:
    theirs, mine = a_pending_attempt(other), a_pending_attempt(tenant)
    tenant.change("UPDATE companies SET settings = '{}' WHERE id = :id", id=other.company_id)
    assert [each.attempt.id for each in tenant.dial.claim([theirs.id, mine.id]).claimed] == [mine.id]
    assert tenant.attempt(theirs.id) == theirs


def test_migration_that_adds_a_column_delays_no_call(tenant: Tenant, postgres_url: str) -> None:
    """Workers keep running during a migration, with the statements that they have prepared."""
    worker = replace(tenant, database=Database(postgres_url, pool_size=1))

    def is_called() -> bool:
        attempt = a_pending_attempt(tenant)
        claimed = worker.dial.claim([attempt.id]).claimed
        return [worker.dial.last_look(each.attempt) is not None for each in claimed] == [True]

    try:
        assert all(is_called() for _ in range(6))  # the driver prepares a statement at its sixth execution
        tenant.change("ALTER TABLE attempts ADD COLUMN later text")
        assert is_called()
    finally:
        worker.database.close()
        tenant.change("ALTER TABLE attempts DROP COLUMN IF EXISTS later")
