"""Response schemas for the evidence of a call."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Self
from uuid import UUID

from pydantic import Field

from api_shim.schemas.envelope import answer
from api_shim.schemas.interview import HappeningView, ScheduleView
from scheduler.domain.attempt import AttemptState, ConversationOutcome, NotReported, Reason, Reported
from scheduler.domain.call import ScheduleWarning
from scheduler.domain.evidence import (
    Evidence,
    EvidenceEntry,
    FaultKind,
    LastLook,
    LookRecord,
    LookResult,
    RuleResult,
    SealState,
)
from scheduler.domain.explanation import Rule
from scheduler.rules.history_seals import shown_detail
from scheduler.timing.time_texts import offset_text
from scheduler.wire.field_types import Wire


class EvidenceRequestView(Wire):
    """The request of the call, or the call that it repeats."""

    at: datetime | None = Field(
        description="When the attempt was created. Null if its first entry is no longer kept, or not shown."
    )
    by: str | None = Field(
        description="`key:` and the id of an API key, `operator`, or the part of Duecall that created a retry.",
        examples=["key:6f1f3a52-0c8e-4f0a-9d4e-0b7a1f1f9c11"],
    )
    key_name: str | None = Field(description="Name of the key, if it is one of yours.")
    requested: str | None = Field(description="The time as it was sent. Null if none was sent.")
    invoked: bool = Field(description="True if a client asked for this call by itself, after the first one.")
    retry_number: int
    first_attempt_id: UUID = Field(description="The first attempt of this chain of retries.")

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        attempt = evidence.attempt
        first = evidence.entries[0] if evidence.entries and evidence.entries[0].number == 0 else None
        return cls.view_of(
            attempt,
            at=first and first.happening.at,
            by=first and first.happening.actor,
            key_name=first and first.happening.key_name,
            requested=attempt.schedule.requested,
            invoked=attempt.manual,
            first_attempt_id=attempt.chain_id,
        )


class LookZoneView(Wire):
    timezone: str = Field(
        description="IANA name, or the offset of the request if that was the clock.", examples=["Europe/Bratislava"]
    )
    utc_offset: str = Field(examples=["+02:00"])
    local_time: str = Field(examples=["2026-04-02T07:00:00"])


class LookHoursView(Wire):
    days: list[str] = Field(description="The days on which these hours start.", examples=[["WED", "THU", "FRI"]])
    start: str = Field(examples=["08:00"])
    end: str = Field(description="Not after `start` if the hours cross midnight.", examples=["20:00"])


class LookFactsView(Wire):
    """The facts by which the call was permitted, as they were then."""

    at: datetime = Field(description="When the rules were checked, at most 200 ms before the request to the carrier.")
    leave_by: datetime = Field(description="The request was not allowed to leave after this time.")
    clocks: list[LookZoneView] = Field(description="All of them had to be within the calling hours.")
    call_time_intervals: list[LookHoursView] = Field(
        description="The company's calling hours that start on the day of the call, the day before or the day after."
    )
    room_seconds: float = Field(description="How long the calling hours had to last on, so that the phone could ring.")
    consent_until: date
    country: str | None = Field(description="Country of the number. Null for a number without a country.")
    tzdata_version: str

    @classmethod
    def of(cls, record: LookRecord) -> Self:
        return cls.view_of(
            record,
            clocks=[
                LookZoneView.view_of(
                    None,
                    timezone=name,
                    utc_offset=offset_text(offset),
                    local_time=(record.at + offset).replace(tzinfo=None).isoformat(timespec="seconds"),
                )
                for name, offset in record.utc_offsets.items()
            ],
            call_time_intervals=[LookHoursView.view_of(each) for each in record.hours],
            room_seconds=record.room / timedelta(seconds=1),
        )


class LookRuleView(Wire):
    rule: Rule
    result: RuleResult = Field(
        description="NOT_RECORDED: a rule before it blocked the call. COMPANY_LIMIT and ACCOUNT_LIMIT passed at"
        " `claimedAt`."
    )


class LastLookView(Wire):
    """The last check of all rules before the call."""

    result: LookResult = Field(
        description="PASSED: the request was sent to the carrier. BLOCKED: a rule blocked the call. NOT_SENT: nothing"
        " was sent for another reason. NOT_RECORDED: the process that checked ended before it could record the result,"
        " the call had ended before that, or the record was changed."
    )
    cause: str | None = Field(description="The rule or the reason for which nothing was sent.")
    claimed_at: datetime = Field(description="When a process took the call on.")
    rules: list[LookRuleView] = Field(description="In the order in which the rules are checked.")
    facts: LookFactsView | None = Field(description="Null unless `result` is PASSED.")

    @classmethod
    def of(cls, look: LastLook) -> Self:
        return cls.view_of(
            look,
            rules=[LookRuleView.view_of(None, rule=rule, result=result) for rule, result in look.rules],
            facts=None if look.record is None else LookFactsView.of(look.record),
        )


class StoredConsentView(Wire):
    until: date = Field(description="The candidate's `gdprExpiryDate`, as it is stored now.")
    person_erased: bool = Field(description="True if the candidate was deleted since.")


class CallbackReceiptView(Wire):
    received_at: datetime
    processed_at: datetime | None


class EvidenceCarrierView(Wire):
    call_id: str | None = Field(description="The carrier's id of the call. Null if no call was placed.")
    callbacks: list[CallbackReceiptView] = Field(
        description="Genuine callbacks, oldest first, for 30 days. Their effects are entries of the history."
    )


class EvidenceEntryView(HappeningView):
    """An entry of the history."""

    number: int = Field(description="Counts the events of the attempt from 0, without gaps.")
    sealed: bool = Field(description="False for an entry that release 0.2.0 or earlier has written.")

    @classmethod
    def of_entry(cls, entry: EvidenceEntry) -> Self:
        happening = replace(entry.happening, detail=shown_detail(entry.happening.detail))
        return cls.of(happening, number=entry.number, sealed=entry.is_sealed)


class SealFaultView(Wire):
    kind: FaultKind = Field(
        description="CHANGED: the entry, or the one before it, was changed. REMOVED: it is missing. ADDED: it was not"
        " written by Duecall. SCHEDULE_CHANGED: the schedule is not the one that this entry set. FACTS_CHANGED:"
        " a fact of the document, such as the status or the reported outcome, is not the one that this entry set."
    )
    number: int = Field(description="The number of the entry.")


class SealsView(Wire):
    """The result of the check of the history for later changes."""

    state: SealState = Field(
        description="WHOLE: no entry of `history`, no schedule and no fact that an entry set was changed, removed or"
        " added. PARTLY_SEALED: no change was found, but nothing proves the entries in `unsealed`. BROKEN: see"
        " `faults`."
    )
    faults: list[SealFaultView]
    unsealed: list[int] = Field(
        description="Numbers of entries of release 0.2.0 or earlier, and of the first shown entry if older ones were"
        " deleted after their retention, or are not shown."
    )


_REPORTS = frozenset({Reported.name, NotReported.name})


class ReportedView(Wire):
    """The report of the conversation of an answered call."""

    outcome: ConversationOutcome
    reported_at: datetime
    call_back_at: datetime | None = Field(description="The time that the person named. Only of CALL_BACK.")

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        """Build it. None: the conversation reported nothing in time, and so counts as finished.

        Without the entry that set it, FINISHED may be assumed, so it is not shown as reported.
        """
        attempt = evidence.attempt
        reports = [name for name in (each.happening.event for each in evidence.entries) if name in _REPORTS]
        if attempt.outcome is None or reports[-1:] == [NotReported.name]:
            return None
        if not reports and attempt.outcome is ConversationOutcome.FINISHED:
            return None
        call_back_at = None if attempt.call_back is None else attempt.call_back.due_at
        return cls.view_of(attempt, reported_at=attempt.outcome_at, call_back_at=call_back_at)


class EvidenceView(Wire):
    """The evidence of a call. Contains no name and no phone number."""

    call_attempt_id: UUID
    interview_id: UUID
    company_id: UUID
    status: AttemptState
    reason_code: Reason | None
    read_at: datetime = Field(description="When this document was made.")
    request: EvidenceRequestView
    schedule: ScheduleView
    scheduled_at: datetime = Field(description="When the call is or was due.")
    expires_at: datetime
    warnings: list[ScheduleWarning]
    consent: StoredConsentView
    last_look: LastLookView | None = Field(description="Null if no process has taken the call on yet.")
    carrier: EvidenceCarrierView
    answered_by: str | None = Field(examples=["PERSON"])
    duration_seconds: float | None
    reported: ReportedView | None = Field(
        description="What the conversation reported. Null: nothing in time, or FINISHED without its entry in `history`."
    )
    history: list[EvidenceEntryView] = Field(description="Oldest first. At most the newest 1,000 entries.")
    history_cut: bool = Field(
        description="True if earlier entries are stored and not shown. Then no seal proves the first shown one."
    )
    seals: SealsView

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        attempt = evidence.attempt
        look = evidence.last_look
        return cls.view_of(
            attempt,
            call_attempt_id=attempt.id,
            status=attempt.state,
            reason_code=attempt.reason,
            read_at=evidence.read_at,
            request=EvidenceRequestView.of(evidence),
            schedule=ScheduleView.of(attempt.schedule, attempt.due_at),
            scheduled_at=attempt.due_at,
            consent=StoredConsentView.view_of(evidence.consent),
            last_look=None if look is None else LastLookView.of(look),
            carrier=EvidenceCarrierView.view_of(
                None,
                call_id=attempt.call_sid,
                callbacks=[CallbackReceiptView.view_of(each) for each in evidence.callbacks],
            ),
            duration_seconds=None if attempt.duration is None else attempt.duration.total_seconds(),
            reported=ReportedView.of(evidence),
            history=[EvidenceEntryView.of_entry(each) for each in evidence.entries],
            history_cut=evidence.is_cut,
            seals=SealsView.view_of(
                evidence.seals, faults=[SealFaultView.view_of(each) for each in evidence.seals.faults]
            ),
        )


EvidenceAnswer = answer("EvidenceAnswer", EvidenceView, "The evidence of a call.")
