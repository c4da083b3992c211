"""Explain: the rules that block an attempt and its history, from the same rules that dial."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.domain.attempt import Attempt, AttemptState, CompanyAttemptFilter, Phase
from scheduler.domain.call import Schedule, ScheduleWarning
from scheduler.domain.command import refusal_of
from scheduler.domain.company import Company, Mails
from scheduler.domain.conversation import Conversation
from scheduler.domain.explanation import Block, CallTimeAnswer, CallTimeQuestion, Explanation, HistoryEntry
from scheduler.domain.interview import Candidate, InterviewFilter, InterviewStory
from scheduler.domain.principal import MAX_NAME, Principal, seen_by_companies
from scheduler.domain.refusals import NotFound, PhoneNumberRequired, Refused
from scheduler.domain.resource import KeysetPage, KeysetSlice, Listed, Slice
from scheduler.lifecycle import blocks, scheduling
from scheduler.lifecycle.policy import TOKEN_LASTS
from scheduler.lifecycle.state_machine import has_live_leg, is_awaited
from scheduler.persistence.last_looks import LastLookRow
from scheduler.persistence.stores import Stores
from scheduler.rules.resources import shown
from scheduler.timing import callee_zones, zone_names
from scheduler.use_cases.operations.counts import carriers_in
from scheduler.use_cases.shared import access
from scheduler.use_cases.shared.batch import callee_of, situation_from
from scheduler.use_cases.shared.context import Context
from scheduler.wire.named_fields import named, of_question

_FAR = timedelta(days=365 * 50)
_KEY = "key:"
_NO_SUCH_CALL = (
    "No call has this token. It is valid until one hour after the end of its call, for keys of the company that calls."
)


class Explain:
    def __init__(self, context: Context) -> None:
        self._database = context.database
        self._hasher = context.hasher
        self._policy = context.policy
        self._now = context.now

    def interview(self, principal: Principal, company_id: UUID | None, interview_id: UUID) -> InterviewStory:
        """Read the interview with its newest attempts.

        Raises NotFound, AccessDenied, CompanyIdRequired, DatabaseAway.
        """
        with self._database.reading(principal) as stores:
            return _story(stores, access.authorized_company(stores, principal, company_id), interview_id)

    def interviews(
        self, principal: Principal, company_id: UUID | None, asked: Slice | KeysetSlice, only: InterviewFilter
    ) -> Listed[InterviewStory] | KeysetPage[InterviewStory]:
        """List interviews, each with its newest attempts. Raises AccessDenied, CompanyIdRequired, DatabaseAway."""
        with self._database.reading(principal) as stores:
            company = access.authorized_company(stores, principal, company_id)
            list_of = stores.interviews
            page = (
                list_of.keyset_page(company, asked, only)
                if isinstance(asked, KeysetSlice)
                else list_of.page(company, asked, only)
            )
            stories = stores.attempts.stories(page.items)
        return page.map(lambda each: stories[each.id])

    def attempts(
        self, principal: Principal, company_id: UUID | None, asked: KeysetSlice, only: CompanyAttemptFilter
    ) -> KeysetPage[Attempt]:
        """List attempts of all interviews of a company. Raises AccessDenied, CompanyIdRequired, DatabaseAway."""
        with self._database.reading(principal) as stores:
            return stores.company_attempts.keyset_page(
                access.authorized_company(stores, principal, company_id), asked, only
            )

    def attempts_page(
        self, principal: Principal, company_id: UUID | None, interview_id: UUID, part: Slice
    ) -> Listed[Attempt]:
        """List attempts of one interview. Raises NotFound, AccessDenied, CompanyIdRequired, DatabaseAway."""
        with self._database.reading(principal) as stores:
            company = access.authorized_company(stores, principal, company_id)
            access.require(stores.interviews.get(company, interview_id), "interview", interview_id)
            return stores.attempts.page_of(interview_id, part)

    def attempt(self, principal: Principal, company_id: UUID | None, interview_id: UUID, attempt_id: UUID) -> Attempt:
        """Find an attempt that is not deleted. Raises NotFound, AccessDenied, CompanyIdRequired, DatabaseAway."""
        with self._database.reading(principal) as stores:
            company = access.authorized_company(stores, principal, company_id)
            return _attempt_of(stores, company, interview_id, attempt_id)

    def conversation(self, principal: Principal, token: str) -> Conversation:
        """Find the call that a token names, in any company that the principal reaches. Raises NotFound, DatabaseAway.

        The token is the only proof that is needed, so an ATS key names no company.
        """
        with self._database.reading(principal) as stores:
            attempt = self._of_token(stores, principal, token)
            interview = access.require(
                stores.interviews.get(attempt.company_id, attempt.interview_id), "interview", attempt.interview_id
            )
            company = access.require(stores.companies.get(attempt.company_id), "company", attempt.company_id)
        return Conversation(
            attempt=attempt,
            candidate_id=interview.candidate_id,
            agent_id=interview.agent_id,
            job_id=interview.job_id,
            focus=interview.focus,
            longest=interview.duration,
            settings=company.settings,
        )

    def reported_call(self, principal: Principal, token: str, *, refuses_number: bool) -> Attempt:
        """Find the call that a report names by its token. Raises NotFound, DatabaseAway.

        A person who asks for no further calls is heard also after a deletion.
        """
        with self._database.reading(principal) as stores:
            return self._of_token(stores, principal, token, with_deleted=refuses_number)

    def _of_token(self, stores: Stores, principal: Principal, token: str, *, with_deleted: bool = False) -> Attempt:
        ended_after = self._now() - TOKEN_LASTS
        attempt = stores.conversations.attempt_of_token(
            token,
            ended_after=ended_after,
            claimed_after=ended_after - self._policy.longest_call,
            with_deleted=with_deleted,
        )
        if attempt is None or not stores.keys.reach(principal, attempt.company_id):
            raise NotFound(_NO_SUCH_CALL, resourceType="callAttempt")
        return attempt

    def explanation(
        self, principal: Principal, company_id: UUID | None, interview_id: UUID, attempt_id: UUID
    ) -> Explanation:
        """Explain the state of an attempt. Raises NotFound, AccessDenied, CompanyIdRequired, DatabaseAway."""
        account_calls = self.account_calls()
        with self._database.reading(principal) as stores:
            company = access.authorized_company(stores, principal, company_id)
            attempt = _attempt_of(stores, company, interview_id, attempt_id)
            return self.explained(stores, attempt, account_calls, principal)

    def explanation_of(self, attempt_id: UUID) -> Explanation:
        """Explain any attempt to the operator, including a deleted one. Raises NotFound, DatabaseAway."""
        account_calls = self.account_calls()
        with self._database.reading() as stores:
            attempt = access.require(stores.attempts.find(attempt_id), "callAttempt", attempt_id)
            return self.explained(stores, attempt, account_calls, None)

    def attempts_of(self, interview_id: UUID) -> Sequence[Attempt]:
        """List an interview's attempts for the operator, oldest first, including deleted ones.

        Empty for an unknown interview. Raises DatabaseAway.
        """
        with self._database.reading() as stores:
            return stores.attempts.find_of_interview(interview_id)

    def account_calls(self) -> int:
        """Count the calls in progress of all companies, the only figure about others that a principal sees."""
        with self._database.counting() as stores:
            return sum(each.in_progress for each in carriers_in(stores))

    def look(self, stores: Stores, attempt_id: UUID) -> LastLookRow:
        """Read what the last look of the attempt needs, without numbers in a role that may not read them."""
        claims = stores.attempt_claims
        row = claims.look(attempt_id) if self._database.reads_numbers else claims.look_without_number(attempt_id)
        assert row is not None
        return row

    def explained(
        self,
        stores: Stores,
        attempt: Attempt,
        account_calls: int,
        reader: Principal | None,
        row: LastLookRow | None = None,
    ) -> Explanation:
        """Build the explanation for `reader`, or for the operator without one. `row`: the attempt's last look."""
        now = self._now()
        history = stores.evidence.history(attempt.id)
        happenings = with_key_names(stores, history.happenings, attempt.company_id, reader)
        if reader is not None:
            happenings = tuple(replace(each, actor=seen_by_companies(each.actor)) for each in happenings)
        blocking: tuple[Block, ...] = ()
        possible: datetime | None = None
        waiting_for = waits_for(attempt, now)
        if attempt.state is AttemptState.PENDING:
            row = row or self.look(stores, attempt.id)
            situation = situation_from(row, self._hasher)
            load = blocks.Load(
                company_calls=stores.attempt_counts.calls_of_company(attempt.company_id),
                company_limit=row.settings.limits.concurrent_calls,
                account_calls=account_calls,
                # Without an account no place is missing: the company may also take the kept ones.
                account_limit=row.max_calls if row.max_calls is not None else 2 * account_calls + 10,
            )
            situation = replace(situation, load=load)
            blocking = blocks.blocks(situation, now, self._policy)
            possible = blocks.next_possible_at(situation, now, self._policy)
            waiting_for = blocks.waits_for(situation, blocking)
        return Explanation(
            attempt=attempt,
            waits_for=waiting_for,
            next_possible_at=possible,
            blocks=blocking,
            happenings=happenings,
        )

    def preview(self, principal: Principal, company_id: UUID | None, question: CallTimeQuestion) -> CallTimeAnswer:
        """Preview the answer that creating an interview would give, without creating anything.

        Raises NotFound for an unknown candidate, AccessDenied, CompanyIdRequired, DatabaseAway.
        """
        with self._database.reading(principal) as stores:
            now = self._now()
            company = stores.companies.get(access.authorized_company(stores, principal, company_id))
            if company is None:
                raise access.not_found("company", company_id or principal.id)
            candidate = None
            known: tuple[ScheduleWarning, ...] = ()
            if question.candidate_id is not None:
                candidate = stores.candidates.get(company.id, question.candidate_id)
                if candidate is None:
                    raise access.not_found("candidate", question.candidate_id)
                if stores.interviews.open_of_candidate(candidate.id):
                    known = (ScheduleWarning.CANDIDATE_HAS_OPEN_INTERVIEW,)
        try:
            with named(of_question(question)):
                schedule, warnings = self._judge(question, candidate, company, now)
        except Refused as refused:
            return CallTimeAnswer(refusal=refusal_of(refused), next_possible_at=_next_allowed(refused))
        return CallTimeAnswer(schedule=schedule, warnings=(*warnings, *known), next_possible_at=schedule.due_at)

    def _judge(
        self, question: CallTimeQuestion, candidate: Candidate | None, company: Company, now: datetime
    ) -> tuple[Schedule, tuple[ScheduleWarning, ...]]:
        """Resolve the requested time. Raises the refusal if the person may not be called then, or at all."""
        if candidate is not None:
            callee = callee_of(candidate, company)
        else:
            number = question.phone_number
            callee = scheduling.Callee(
                number=None if number is None else callee_zones.read_number(number),
                timezone=None,
                consent_until=(now + _FAR).date(),
                settings=company.settings,
            )
        if question.timezone is not None:
            callee = replace(callee, timezone=zone_names.check_zone(question.timezone))
        if callee.number is None:
            raise PhoneNumberRequired
        callee_zones.check_allowed(callee.number, company.settings.allowed_countries)
        return scheduling.on_request(question.scheduled_at, callee, now, self._policy)

    def unsent_invitations(self) -> Sequence[Mails]:
        """List the state of unsent invitation e-mails, by company. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.invitations.unsent(self._now())


def waits_for(attempt: Attempt, now: datetime) -> str:
    """Describe in a few words the next event that the attempt needs, from its state alone. Empty if it needs none.

    The explanation of a pending attempt also names other blocks, such as a pause.
    """
    if attempt.state is AttemptState.PENDING:
        return "its time" if attempt.due_at > now else "its turn"
    if attempt.phase is Phase.DIALLING:
        return "the carrier's answer"
    if attempt.phase is Phase.PLACED:
        return "the call's end"
    if attempt.phase is Phase.UNKNOWN:
        return "proof of what became of it"
    if is_awaited(attempt):
        return "the outcome of the conversation"
    return "the call's end" if has_live_leg(attempt) else ""


def with_key_names(
    stores: Stores, happenings: Sequence[HistoryEntry], company_id: UUID, reader: Principal | None
) -> tuple[HistoryEntry, ...]:
    """Add the name of the API key that caused each entry, if the reader may know that key."""
    ids = {each.actor: key_id for each in happenings if (key_id := _key_id(each.actor)) is not None}
    names: dict[UUID, str] = {}
    for key in stores.keys.named(ids.values(), company_id, reader):
        name = shown(key.name, MAX_NAME)
        names[key.id] = name
        names.setdefault(key.principal_id, name)
    return tuple(
        replace(each, key_name=names.get(ids[each.actor])) if each.actor in ids else each for each in happenings
    )


def _key_id(actor: str) -> UUID | None:
    """Find the id of the API key that an actor is known by. None: it is no key, or its entry was changed."""
    try:
        return UUID(actor.removeprefix(_KEY)) if actor.startswith(_KEY) else None
    except ValueError:
        return None


def _story(stores: Stores, company_id: UUID, interview_id: UUID) -> InterviewStory:
    interview = access.require(stores.interviews.get(company_id, interview_id), "interview", interview_id)
    return stores.attempts.story(interview)


def _attempt_of(stores: Stores, company_id: UUID, interview_id: UUID, attempt_id: UUID) -> Attempt:
    access.require(stores.interviews.get(company_id, interview_id), "interview", interview_id)
    return access.require(stores.attempts.get(interview_id, attempt_id), "callAttempt", attempt_id)


def _next_allowed(refused: Refused) -> datetime | None:
    text = refused.details.get("nextAllowedAt")
    return datetime.fromisoformat(text) if isinstance(text, str) else None
