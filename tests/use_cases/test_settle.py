"""Attempts without news: polled, proven or given up, and never dialled again."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from scheduler.carriers.interface import CarrierUnavailable
from scheduler.carriers.twilio import TwilioAccount
from scheduler.carriers.twilio_queries import TwilioQueries
from scheduler.domain.attempt import Attempt, AttemptState, Phase, Reason
from scheduler.domain.call import CallNews, CallStatus, ListedCall, NeverTaken
from scheduler.domain.command import CommandState, RescheduleAttempt
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle import decisions
from scheduler.lifecycle.breaker import BACK_OFF, Breaker
from scheduler.lifecycle.policy import ASK_EVERY, MAX_QUEUE, POLL_AFTER_RING, Policy
from scheduler.persistence.attempt_polls import AttemptPolls
from scheduler.use_cases import settle as settling
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.conftest import TestClock, wait_until
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    an_attempt_of_unknown_outcome,
    an_unknown_attempt,
)
from tests.support.servers import SimulatedCarrier, a_closed_port
from tests.use_cases.conftest import (
    EMPTY_LIST,
    FOR_HOURS,
    Calls,
    Perform,
    answering,
    breaker_of,
    close_breaker,
    finish,
    is_claimed,
    pause_reason,
    see_leg,
    settle_at,
)
from tests.use_cases.test_hear import a_form, deliver

A_MOMENT = timedelta(microseconds=1)
AN_HOUR = timedelta(hours=1)


# ---- a lapsed lease


def test_lapsed_lease_is_found_on_the_list_and_polled_to_its_end(
    tenant: Tenant, settle: Settle, calls: Calls, now: TestClock
) -> None:
    mine = a_claimed_attempt(tenant)
    sid = calls.ring(mine, ring_s=0.0, talk_s=FOR_HOURS)
    calls.wait_for(sid, "in-progress")
    now.move(tenant.policy.lease)
    settle.round()
    placed = tenant.attempt(mine.id)
    assert (placed.phase, placed.call_sid) == (Phase.PLACED, sid)
    calls.end(sid)
    assert placed.look_at is not None
    now.instant = placed.look_at
    settle.round()
    assert tenant.attempt(mine.id).reason is Reason.ANSWERED
    assert tenant.history(mine.id) == ["created", "claimed", "answer_lost", "placed", "progressed", "ended"]
    assert tenant.interview_status(mine) is InterviewStatus.COMPLETED
    assert tenant.line(mine) == (None, mine.interview_id, now() + tenant.policy.line_gap)


def test_concurrent_rounds_settle_a_lapsed_lease_once(tenant: Tenant, settle: Settle, now: TestClock) -> None:
    mine = a_claimed_attempt(tenant)
    now.move(tenant.policy.lease)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: settle._step_each(AttemptPolls.lapsed_leases, settle._lapse), range(4)))
    assert tenant.history(mine.id) == ["created", "claimed", "answer_lost"]


@guards("settle_time")
def test_unproven_call_is_given_up_after_the_time_for_a_proof(tenant: Tenant, settle: Settle, now: TestClock) -> None:
    unknown = an_unknown_attempt(tenant)
    assert unknown.unknown_at is not None
    now.instant = unknown.unknown_at + tenant.policy.settle - A_MOMENT
    settle.round()
    assert tenant.attempt(unknown.id).phase is Phase.UNKNOWN
    now.move(ASK_EVERY)
    settle.round()
    given_up = tenant.attempt(unknown.id)
    assert (given_up.state, given_up.reason) == (AttemptState.FAILED, Reason.OUTCOME_UNKNOWN)
    assert tenant.interview_status(unknown) is InterviewStatus.FAILED
    assert tenant.line(unknown) == (None, None, now() + tenant.policy.line_gap), "all wait"


def test_unknown_attempt_is_polled_at_once_and_every_ten_seconds(
    tenant: Tenant, settle: Settle, now: TestClock
) -> None:
    unknown = an_unknown_attempt(tenant)
    assert unknown.look_at == now()
    for looks in (1, 2, 3):
        settle.round()
        polled = tenant.attempt(unknown.id)
        assert (polled.looks, polled.look_at) == (looks, now() + ASK_EVERY)
        now.move(ASK_EVERY - A_MOMENT)
        settle.round()
        assert tenant.attempt(unknown.id) == polled, "not before"
        now.move(A_MOMENT)


def test_attempt_that_cannot_be_settled_delays_no_other(
    tenant: Tenant, other: Tenant, settle: Settle, calls: Calls, now: TestClock
) -> None:
    attempts = [a_claimed_attempt(each) for each in (tenant, other, tenant, other, tenant)]
    for attempt in attempts:
        calls.ring_and_record(attempt, until="busy", outcome="busy", ring_s=0.0)
    tenant.change("UPDATE companies SET settings = '{}' WHERE id = :id", id=other.company_id)
    now.move(timedelta(minutes=2))
    settle.round()
    assert [tenant.attempt(each.id).reason for each in attempts] == [Reason.BUSY, None, Reason.BUSY, None, Reason.BUSY]


# ---- calls that the carrier has forgotten


def test_call_unknown_to_the_carrier_ends_when_it_must_be_over(tenant: Tenant, settle: Settle, now: TestClock) -> None:
    forgotten = a_placed_attempt(tenant)
    now.move(MAX_QUEUE + tenant.policy.ring_timeout + tenant.policy.max_call - A_MOMENT)
    settle.round()
    assert tenant.attempt(forgotten.id).phase is Phase.PLACED, "it may wait in the queue, ring and talk that long"
    now.move(timedelta(minutes=10))
    settle.round()
    assert tenant.attempt(forgotten.id).reason is Reason.OUTCOME_UNKNOWN, "a person decides"
    assert tenant.line(forgotten) == (None, None, now() + tenant.policy.line_gap)


def test_late_call_unknown_to_the_carrier_frees_its_line(tenant: Tenant, settle: Settle, now: TestClock) -> None:
    unknown = an_attempt_of_unknown_outcome(tenant)
    live = see_leg(tenant, unknown)
    now.move(MAX_QUEUE + tenant.policy.ring_timeout + tenant.policy.max_call)
    settle.round()
    given_up = tenant.attempt(live.id)
    assert (given_up.reason, given_up.look_at) == (Reason.OUTCOME_UNKNOWN, None)
    assert tenant.line(live)[0] is None
    assert tenant.interview_status(live) is InterviewStatus.FAILED
    settle.round()
    assert tenant.attempt(live.id) == given_up


# ---- answers that prove nothing


def test_call_to_another_number_does_not_match(tenant: Tenant, settle: Settle, calls: Calls) -> None:
    calls.ring(a_claimed_attempt(tenant))
    unknown = an_unknown_attempt(tenant)
    settle.round()
    assert tenant.attempt(unknown.id).phase is Phase.UNKNOWN


def test_call_from_before_the_claim_does_not_match(
    tenant: Tenant, settle: Settle, calls: Calls, now: TestClock
) -> None:
    number = a_number()
    earlier = a_claimed_attempt(tenant, number)
    sid = calls.ring(earlier)
    finish(tenant, earlier, Reason.INVALID_NUMBER)  # its sid was never learnt
    now.move(timedelta(seconds=6))
    unknown = an_unknown_attempt(tenant, number)
    settle.round()
    assert tenant.attempt(unknown.id).call_sid != sid


@guards("other_leg")
@pytest.mark.parametrize("direction", ["outbound-dial", "inbound"])
def test_leg_that_no_request_placed_does_not_match(
    tenant: Tenant, settle: Settle, calls: Calls, now: TestClock, direction: str
) -> None:
    """A call of a person to our number, or a transfer, stands in the list between the same two numbers."""
    mine = a_claimed_attempt(tenant)
    sid = calls.ring(mine, other_leg=direction)
    now.move(tenant.policy.lease)
    settle.round()
    placed = tenant.attempt(mine.id)
    assert (placed.phase, placed.call_sid) == (Phase.PLACED, sid)
    assert pause_reason(tenant) is None


@guards("bound")
def test_call_bound_to_another_attempt_does_not_match(
    tenant: Tenant, settle: Settle, calls: Calls, now: TestClock
) -> None:
    number = a_number()
    earlier = a_claimed_attempt(tenant, number)
    calls.ring_and_record(earlier, outcome="busy", ring_s=0.0)
    finish(tenant, tenant.attempt(earlier.id))
    unknown = an_unknown_attempt(tenant, number, interview_id=earlier.interview_id)
    settle.round()
    assert tenant.attempt(unknown.id).call_sid is None
    now.move(tenant.policy.settle)
    settle.round()
    assert tenant.attempt(unknown.id).reason is Reason.OUTCOME_UNKNOWN, "nor does it keep this one from its end"


def test_two_matching_calls_bind_neither_and_pause_the_company(
    tenant: Tenant, settle: Settle, calls: Calls, now: TestClock
) -> None:
    unknown = a_claimed_attempt(tenant)
    calls.ring(unknown)
    calls.post_late(unknown)
    now.move(tenant.policy.lease)
    settle.round()
    still = tenant.attempt(unknown.id)
    assert (still.phase, still.call_sid) == (Phase.UNKNOWN, None)
    assert pause_reason(tenant) == "ALARM: TWO_CALLS_TO_ONE_NUMBER"
    assert tenant.line(unknown)[0] == unknown.id
    for _ in range(3):
        now.move(ASK_EVERY)
        settle.round()
    statuses = [leg["status"] for leg in calls.carrier.rings(unknown.called_number)]
    assert sorted(statuses) == ["canceled", "ringing"], "one unanswered call is ended"


# ---- a carrier that cannot be asked


def many_unknown_attempts(tenant: Tenant) -> list[Attempt]:
    """More than are taken up at once, of a carrier that is not held to be down."""
    attempts = []
    for _ in range(15):
        attempts.append(an_unknown_attempt(tenant))
        close_breaker(tenant)
    return attempts


NONSENSE = [
    pytest.param(200, b"<html>Bad gateway</html>", id="no JSON"),
    pytest.param(200, b"[]", id="a list"),
    pytest.param(200, b"null", id="null"),
    pytest.param(200, b"{}", id="an empty object"),
    pytest.param(200, b'{"calls": [{"sid": "CA1", "status": "queued", "date_created": "today"}]}', id="no date"),
    pytest.param(200, b'{"calls": [{}]}', id="an empty call"),
    pytest.param(404, b"not found", id="404"),
    pytest.param(302, b"", id="a redirect"),
]


@pytest.mark.parametrize(("status", "body"), NONSENSE)
def test_undocumented_answer_proves_nothing_and_stops_no_other(
    tenant: Tenant, now: TestClock, status: int, body: bytes
) -> None:
    attempts = [an_unknown_attempt(tenant), a_placed_attempt(tenant), an_unknown_attempt(tenant)]
    now.move(timedelta(minutes=2))
    with answering(status, body) as url:
        settle_at(tenant, url).round()
    for before in attempts:
        after = tenant.attempt(before.id)
        assert (after.phase, after.looks) == (before.phase, 1)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(503, b'{"code": 20503, "message": "down", "status": 503}', id="503"),
        pytest.param(429, b"{}", id="429"),
        pytest.param(401, b"{}", id="401"),
    ],
)
def test_first_unanswered_request_is_the_last_of_the_round(
    tenant: Tenant, settle: Settle, now: TestClock, status: int, body: bytes
) -> None:
    attempts = many_unknown_attempts(tenant)
    now.move(tenant.policy.lease + ASK_EVERY)
    settle.round()
    now.move(ASK_EVERY)
    paths: list[str] = []
    with answering(status, body, paths) as url:
        unanswered = settle_at(tenant, url)
        unanswered.round()
        assert len(paths) == 1
        assert sorted(tenant.attempt(each.id).looks for each in attempts) == [1] * 14 + [2]
        now.move(tenant.policy.settle)
        unanswered.round()
        assert len(paths) == 2
    assert {tenant.attempt(each.id).reason for each in attempts} == {Reason.OUTCOME_UNKNOWN}, "time runs on for all"


IMPATIENT = Policy(
    connect_timeout=timedelta(seconds=0.2),
    total_timeout=timedelta(seconds=0.3),
    lease=timedelta(seconds=5),
    settle=timedelta(seconds=10),
    short_call=timedelta(),
)


def test_hanging_carrier_delays_a_round_once_and_no_expiry(
    tenant: Tenant, carrier: SimulatedCarrier, now: TestClock
) -> None:
    impatient = replace(tenant, policy=IMPATIENT)
    expiring = a_pending_attempt(impatient, expires_at=now() + A_MOMENT)
    silent = a_claimed_attempt(impatient)
    unknown = many_unknown_attempts(impatient)
    now.move(IMPATIENT.lease)
    seen: list[object] = []

    def is_asked() -> None:
        seen.append((impatient.attempt(expiring.id).reason, impatient.attempt(silent.id).phase))

    carrier.down("hang")
    queries = Watched(carrier.account(), IMPATIENT, is_asked)
    Settle(impatient.context, queries, impatient.account_id).round()
    carrier.up()
    assert seen == [(Reason.EXPIRED, Phase.UNKNOWN)], "one question, after what needs no carrier"
    assert sum(impatient.attempt(each.id).looks for each in [*unknown, silent]) == 1


def test_polls_left_by_a_round_are_made_by_the_next(tenant: Tenant) -> None:
    attempts = many_unknown_attempts(tenant)
    paths: list[str] = []
    with answering(200, EMPTY_LIST, paths) as url:
        settle_at(tenant, url, longest_round=timedelta(0)).round()
        assert paths == []
        settle_at(tenant, url).round()
        assert len(paths) == len(attempts), "nothing was held from the others"
    assert {tenant.attempt(each.id).looks for each in attempts} == {1}


@pytest.fixture
def ending(tenant: Tenant, now: TestClock) -> list[Attempt]:
    """Three expired attempts, and three with lapsed leases."""
    expired = [a_pending_attempt(tenant, expires_at=now() + A_MOMENT) for _ in range(3)]
    lapsed = [a_claimed_attempt(tenant) for _ in range(3)]
    now.move(tenant.policy.lease)
    return [*expired, *lapsed]


def unchanged(tenant: Tenant, attempts: list[Attempt]) -> list[AttemptState]:
    """List the states of those attempts that have not changed."""
    return [each.state for each in attempts if tenant.attempt(each.id).epoch == each.epoch]


def test_round_without_time_expires_and_lapses_nothing(tenant: Tenant, settle: Settle, ending: list[Attempt]) -> None:
    settle_at(tenant, a_closed_port(), longest_round=timedelta(0)).round()
    assert len(unchanged(tenant, ending)) == 6
    settle.round()
    assert unchanged(tenant, ending) == []


def test_round_expires_and_lapses_a_limited_number(
    tenant: Tenant, settle: Settle, ending: list[Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "_MAX_PER_ROUND", 2)
    settle.round()
    assert unchanged(tenant, ending) == [AttemptState.PENDING, AttemptState.IN_PROGRESS]
    settle.round()
    assert unchanged(tenant, ending) == []


# ---- a carrier that is down


def make_a_probe_due(tenant: Tenant, now: TestClock) -> None:
    """Make the carrier fail, and move to the time of the next probe."""
    tenant.dial.record([(a_claimed_attempt(tenant), NeverTaken(cause="CREDENTIALS"))])
    now.move(BACK_OFF[0])


def test_one_of_many_settlers_probes_the_carrier(tenant: Tenant, now: TestClock) -> None:
    make_a_probe_due(tenant, now)
    breakers: list[Breaker] = []

    def another_settles() -> None:
        breakers.append(breaker_of(tenant))
        settle.round()

    settle = settle_during(tenant, another_settles)
    settle.round()
    assert [breaker.is_down for breaker in breakers] == [True]
    assert breaker_of(tenant).is_on_trial


def test_crash_during_a_probe_delays_the_next_by_one_wait(tenant: Tenant, settle: Settle, now: TestClock) -> None:
    make_a_probe_due(tenant, now)

    def killed() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        settle_during(tenant, killed).round()
    settle.round()
    assert breaker_of(tenant).is_down
    now.move(BACK_OFF[1])
    settle.round()
    assert breaker_of(tenant).is_on_trial


def test_answer_to_an_outdated_probe_is_ignored(tenant: Tenant, now: TestClock, offline: Settle) -> None:
    make_a_probe_due(tenant, now)

    def another_asks_later_and_in_vain() -> None:
        now.move(BACK_OFF[1])
        offline.round()

    settle_during(tenant, another_asks_later_and_in_vain).round()
    assert breaker_of(tenant).is_down


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(200, b"<html>We are back soon</html>", id="no JSON"),
        pytest.param(200, b"[]", id="a list"),
        pytest.param(200, b"{}", id="an empty object"),
        pytest.param(302, b"", id="a redirect"),
        pytest.param(404, b"not found", id="404"),
        pytest.param(401, b"{}", id="401"),
        pytest.param(429, b"{}", id="429"),
        pytest.param(503, b"{}", id="503"),
    ],
)
def test_carrier_with_a_malformed_answer_stays_down(tenant: Tenant, now: TestClock, status: int, body: bytes) -> None:
    make_a_probe_due(tenant, now)
    with answering(status, body) as url:
        settle_at(tenant, url).round()
    assert breaker_of(tenant).is_down
    assert breaker_of(tenant).down_until == now() + BACK_OFF[1]


@pytest.mark.parametrize(
    "body", [EMPTY_LIST, b'{"calls": [{"sid": "CA1", "status": "of a new kind"}]}'], ids=["none", "a new kind"]
)
def test_carrier_that_answers_a_probe_is_back(tenant: Tenant, now: TestClock, body: bytes) -> None:
    make_a_probe_due(tenant, now)
    with answering(200, body) as url:
        settle_at(tenant, url).round()
    assert breaker_of(tenant).is_on_trial


# ---- a placed call without an end


def test_placed_call_is_polled_after_its_ring_time_with_back_off(
    tenant: Tenant, calls: Calls, settle: Settle, now: TestClock
) -> None:
    mine = a_claimed_attempt(tenant)
    calls.ring_and_record(mine, until="ringing")
    assert tenant.attempt(mine.id).look_at == now() + tenant.policy.ring_timeout + POLL_AFTER_RING
    now.move(tenant.policy.ring_timeout + POLL_AFTER_RING)
    for minutes in (1, 2, 5, 10, 10):
        settle.round()
        assert tenant.attempt(mine.id).look_at == now() + timedelta(minutes=minutes)
        now.move(timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        pytest.param("busy", Reason.BUSY, id="busy"),
        pytest.param("voicemail", Reason.VOICEMAIL, id="a machine"),
        pytest.param("answered", Reason.ANSWERED, id="a person"),
    ],
)
def test_polled_end_sets_the_outcome(
    tenant: Tenant, calls: Calls, settle: Settle, now: TestClock, outcome: str, reason: Reason
) -> None:
    mine = a_claimed_attempt(tenant)
    calls.ring_and_record(mine, outcome=outcome, ring_s=0.0, talk_s=0.0)
    wait_until(lambda: calls.carrier.rings()[-1]["ended_at"], says="it is over")
    now.move(tenant.policy.ring_timeout + POLL_AFTER_RING)
    settle.round()
    assert tenant.attempt(mine.id).reason is reason


def test_polled_failure_waits_for_a_stored_callback(
    tenant: Tenant, calls: Calls, hear: Hear, settle: Settle, hints: RecordingHints, now: TestClock
) -> None:
    """A poll does not return why a call failed. Its last callback contains the cause."""
    stored, lost = a_claimed_attempt(tenant), a_claimed_attempt(tenant)
    for mine in (stored, lost):
        calls.ring_and_record(mine, outcome="declined", ring_s=0.0)
    wait_until(lambda: all(each["ended_at"] for each in calls.carrier.rings()[-2:]), says="both are over")
    deliver(hear, stored, a_form(tenant.attempt(stored.id), "failed", SipResponseCode="603"))
    now.move(tenant.policy.ring_timeout + POLL_AFTER_RING)
    settle.round()
    assert tenant.attempt(lost.id).reason is Reason.CARRIER_ERROR
    assert tenant.attempt(stored.id).state is AttemptState.IN_PROGRESS
    for event_id in hints.ids(tasks.HEAR):
        hear.event(event_id)
    assert tenant.attempt(stored.id).reason is Reason.DECLINED


@pytest.mark.parametrize(
    ("error_codes", "reason", "is_lost", "is_retried"),
    [
        pytest.param([21211], Reason.INVALID_NUMBER, False, False, id="the number"),
        pytest.param([13224], Reason.UNREACHABLE, False, True, id="the number or an outage"),
        pytest.param([32017], Reason.BLOCKED_BY_NETWORK, False, False, id="the caller id"),
        pytest.param([32017, 13224, 32016], Reason.BLOCKED_BY_NETWORK, False, False, id="the caller id first"),
        pytest.param([32016], Reason.CARRIER_ERROR, False, True, id="no route answered"),
        pytest.param([22001], Reason.CARRIER_ERROR, False, True, id="timed out"),
        pytest.param([10004], Reason.CARRIER_ERROR, False, True, id="too many calls at once"),
        pytest.param([86008], Reason.CARRIER_ERROR, False, True, id="too many calls at once, newer code"),
        pytest.param([13227], Reason.CARRIER_ERROR, False, True, id="our account"),
        pytest.param([21216], Reason.CARRIER_ERROR, False, True, id="a block of the number"),
        pytest.param([13212], Reason.CARRIER_ERROR, True, False, id="a verb of the instructions"),
        pytest.param([11200, 11205, 11210, 12100, 12300], Reason.CARRIER_ERROR, True, False, id="the instructions"),
        pytest.param([], Reason.CARRIER_ERROR, True, False, id="nothing"),
    ],
)
def test_cause_of_a_failure_is_polled(
    retrying: Tenant,
    calls: Calls,
    settle: Settle,
    now: TestClock,
    error_codes: list[int],
    reason: Reason,
    is_lost: bool,
    is_retried: bool,
) -> None:
    named, listed = a_claimed_attempt(retrying), a_claimed_attempt(retrying)
    calls.ring_and_record(named, outcome="invalid_number", ring_s=0.0, error_codes=error_codes)
    calls.ring(listed, outcome="invalid_number", ring_s=0.0, error_codes=error_codes)
    wait_until(lambda: all(each["ended_at"] for each in calls.carrier.rings()[-2:]), says="both are over")
    now.move(retrying.policy.lease)
    settle.round()
    for mine in (named, listed):
        ended = retrying.attempt(mine.id)
        assert (ended.reason, ended.cause_is_lost) == (reason, is_lost)
        status = InterviewStatus.SCHEDULED if is_retried else InterviewStatus.FAILED
        assert (len(retrying.attempts(mine.interview_id)), retrying.interview_status(mine)) == (1 + is_retried, status)


class Interrupted:
    """Queries that run `meanwhile` before each answer."""

    def __init__(self, meanwhile: Callable[[], object], news: CallNews | None) -> None:
        self._meanwhile = meanwhile
        self._news = news

    def listed(self, *, created_from: datetime, **_: object) -> Sequence[ListedCall]:
        self._meanwhile()
        return [] if self._news is None else [ListedCall(news=self._news, created_at=created_from)]

    def fetch(self, call_sid: str) -> CallNews:
        self._meanwhile()
        if self._news is None:
            raise CarrierUnavailable(call_sid)
        return self._news

    def probe(self) -> None:
        self._meanwhile()

    def cancel(self, call_sid: str) -> None: ...

    def hang_up(self, call_sid: str) -> None: ...


def settle_during(tenant: Tenant, meanwhile: Callable[[], object], news: CallNews | None = None) -> Settle:
    return Settle(tenant.context, Interrupted(meanwhile, news), tenant.account_id)


class Watched(TwilioQueries):
    """Queries that call `is_asked` before each list."""

    def __init__(self, account: TwilioAccount, policy: Policy, is_asked: Callable[[], None]) -> None:
        super().__init__(account, policy)
        self._is_asked = is_asked

    def listed(
        self, *, to: str | None, caller: str, created_from: datetime, created_until: datetime
    ) -> Sequence[ListedCall]:
        self._is_asked()
        return super().listed(to=to, caller=caller, created_from=created_from, created_until=created_until)


@pytest.mark.parametrize(
    "news",
    [
        pytest.param(None, id="nothing"),
        pytest.param(CallNews(call_sid=a_sid(), status=CallStatus.BUSY), id="busy", marks=guards("epoch")),
    ],
)
def test_outdated_poll_result_writes_nothing(tenant: Tenant, now: TestClock, news: CallNews | None) -> None:
    unknown = an_unknown_attempt(tenant)
    now.move(tenant.policy.settle)
    sid = a_sid()

    def called_back() -> None:
        with tenant.database.transaction() as stores:
            attempt = stores.attempts.lock(unknown.id)
        events = decisions.on_news(
            attempt, CallNews(call_sid=sid, status=CallStatus.RINGING), None, now(), tenant.policy
        )
        assert isinstance(events, tuple)
        tenant.take(attempt, *events)

    settle_during(tenant, called_back, news).round()
    heard = tenant.attempt(unknown.id)
    assert (heard.phase, heard.call_sid) == (Phase.PLACED, sid)
    assert pause_reason(tenant) is None, "and raises no alarm"


# ---- expiry


def test_pending_attempt_of_a_paused_company_expires(
    tenant: Tenant, settle: Settle, now: TestClock, expiring: Attempt
) -> None:
    with tenant.database.transaction() as stores:
        stores.companies.pause(tenant.company_id, "a test", now())
    now.move(AN_HOUR)
    assert expires(tenant, settle, expiring)
    assert tenant.interview_status(expiring) is InterviewStatus.FAILED


def test_round_leaves_what_is_not_over_yet(tenant: Tenant, settle: Settle, now: TestClock) -> None:
    placed = a_placed_attempt(tenant, expires_at=now() + A_MOMENT)
    claimed = a_claimed_attempt(tenant)
    now.move(timedelta(seconds=30))
    pending = a_pending_attempt(tenant, expires_at=now() + A_MOMENT)
    settle.round()
    for each in (placed, claimed, pending):
        assert tenant.attempt(each.id) == each


# ---- questions before the expiry


def move(attempt: Attempt, to: str = "2026-04-03T09:00:00+02:00") -> RescheduleAttempt:
    return RescheduleAttempt(interview_id=attempt.interview_id, attempt_id=attempt.id, scheduled_at=to)


@pytest.fixture
def expiring(tenant: Tenant) -> Attempt:
    """A pending attempt that expires in an hour."""
    return a_pending_attempt(tenant, expires_at=tenant.now() + AN_HOUR)


def expires(tenant: Tenant, settle: Settle, attempt: Attempt) -> bool:
    settle.round()
    return tenant.attempt(attempt.id).reason is Reason.EXPIRED


def test_command_accepted_before_the_expiry_is_applied_after_it(
    tenant: Tenant, settle: Settle, accept: Perform, apply: Apply, now: TestClock
) -> None:
    pending = a_pending_attempt(tenant, due_at=now() + timedelta(minutes=30), expires_at=now() + timedelta(hours=1))
    now.move(timedelta(hours=1) - A_MOMENT)
    command = accept(move(pending))
    now.move(A_MOMENT)
    settle.round()
    assert tenant.attempt(pending.id) == pending, "it waits for the command and may not be called until then"
    assert not is_claimed(tenant, pending)
    apply.command(command.id)
    moved = tenant.attempt(pending.id)
    assert (moved.state, str(moved.due_at)) == (AttemptState.PENDING, "2026-04-03 07:00:00+00:00")
    settle.round()
    assert tenant.attempt(pending.id) == moved


def test_command_in_time_that_moves_nothing_permits_the_expiry(
    tenant: Tenant, settle: Settle, accept: Perform, apply: Apply, now: TestClock, expiring: Attempt
) -> None:
    command = accept(move(expiring, "2026-04-03T03:00:00+02:00"))
    now.move(AN_HOUR)
    apply.command(command.id)  # refused: at night
    assert expires(tenant, settle, expiring)


def test_command_accepted_after_the_expiry_does_not_prevent_it(
    tenant: Tenant, settle: Settle, accept: Perform, now: TestClock, expiring: Attempt
) -> None:
    now.move(AN_HOUR)
    accept(move(expiring))
    assert expires(tenant, settle, expiring)


def test_quarantined_command_prevents_no_expiry(
    tenant: Tenant, settle: Settle, accept: Perform, now: TestClock, expiring: Attempt
) -> None:
    command = accept(move(expiring))
    with tenant.database.transaction() as stores:
        for _ in range(5):
            stores.inbox.count_failure(command.id, "A_TEST", now())
    now.move(AN_HOUR)
    assert expires(tenant, settle, expiring)


def test_command_of_another_interview_prevents_no_expiry(
    tenant: Tenant, settle: Settle, accept: Perform, now: TestClock, expiring: Attempt
) -> None:
    accept(move(a_pending_attempt(tenant)))
    now.move(AN_HOUR)
    assert expires(tenant, settle, expiring)


def test_command_accepted_during_expiry_is_seen_under_the_lock(
    tenant: Tenant, settle: Settle, accept: Perform, now: TestClock, expiring: Attempt
) -> None:
    command = accept(move(expiring))
    now.move(AN_HOUR)
    settle._end_expired(expiring)  # chosen before the command came
    assert tenant.attempt(expiring.id) == expiring
    assert command.state is CommandState.WAITING
