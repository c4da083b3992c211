"""Tables of PostgreSQL, with our invariants as constraints. The database repeats our rules and decides none."""

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    Uuid,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import SchemaItem

from scheduler.domain.attempt import AttemptState, Reason
from scheduler.lifecycle.state_machine import ENDS

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_INSTANT = DateTime(timezone=True)


def _timestamps() -> tuple[Column[object], Column[object]]:
    return (Column("created_at", _INSTANT, nullable=False), Column("updated_at", _INSTANT, nullable=False))


def _table(name: str, *parts: SchemaItem) -> Table:
    return Table(name, metadata, *parts)


def _index(name: str | None, *columns: str | TextClause, where: str, **options: Any) -> Index:  # noqa: ANN401 - as Index
    """Build the index of the rows that meet a condition."""
    return Index(name, *columns, postgresql_where=text(where), **options)


def _unique_external_id(table: str, end: str = "deleted_at") -> Index:
    """Build the index by which a company's own ids are unique until `end`. It omits rows without such an id."""
    where = f"external_id IS NOT NULL AND {end} IS NULL"
    return _index(f"uq_{table}_external_id", "company_id", "external_id", where=where, unique=True)


companies = _table(
    "companies",
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("settings", JSONB, nullable=False),
    Column("ats_principal_id", Uuid),
    # Fields of the public API that no rule here uses.
    Column("profile", JSONB, nullable=False, server_default=text("'{}'")),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column("billing_system", Text, nullable=False, server_default="minutes"),
    Column("prices", JSONB, nullable=False, server_default=text("'{}'")),
    # Locked and checked by the claim. Pause and DELETE write the same row, so neither can happen during a claim.
    Column("calls_per_second", Numeric(8, 3), nullable=False),
    Column("concurrent_calls", Integer, nullable=False),
    # The highest limits that the company may set, by operators. NULL: those of the carrier account.
    Column("calls_per_second_ceiling", Numeric(8, 3)),
    Column("concurrent_calls_ceiling", Integer),
    Column("next_slot_at", _INSTANT, nullable=False),
    Column("paused_at", _INSTANT),
    Column("pause_reason", Text),
    Column("resumed_at", _INSTANT),
    Column("deleted_at", _INSTANT),
    *_timestamps(),
    CheckConstraint("calls_per_second > 0 AND concurrent_calls >= 0", name="limits_are_positive"),
    CheckConstraint(
        "concurrent_calls <= concurrent_calls_ceiling AND calls_per_second <= calls_per_second_ceiling",
        name="limits_within_the_ceiling",
    ),
    CheckConstraint("(paused_at IS NULL) = (pause_reason IS NULL)", name="a_pause_has_a_reason"),
    CheckConstraint("billing_system IN ('minutes', 'credits')", name="billing_system"),
    Index(None, "ats_principal_id", "created_at", "id"),
)

api_keys = _table(
    "api_keys",
    Column("id", Uuid, primary_key=True),
    Column("principal_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("company_id", Uuid, ForeignKey("companies.id")),
    Column("name", Text, nullable=False),
    Column("key_hash", LargeBinary, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("per_minute", Integer, nullable=False),
    Column("per_hour", Integer, nullable=False),
    Column("expires_at", _INSTANT),
    Column("suspended_at", _INSTANT),
    Column("suspend_reason", Text),
    Column("revoked_at", _INSTANT),
    Column("last_used_at", _INSTANT),
    *_timestamps(),
    CheckConstraint("kind IN ('REGULAR', 'ATS')", name="kind"),
    CheckConstraint("(kind = 'REGULAR') = (company_id IS NOT NULL)", name="a_regular_key_has_one_company"),
    CheckConstraint("suspend_reason IS NULL OR suspended_at IS NOT NULL", name="a_reason_of_a_suspension"),
    Index(None, "principal_id"),
    Index(None, "company_id"),
)

phone_numbers = _table(
    "phone_numbers",
    Column("id", Uuid, primary_key=True),
    Column("company_id", Uuid, ForeignKey("companies.id"), nullable=False),
    Column("number", Text, nullable=False),
    Column("number_type", Text, nullable=False, server_default="LOCAL"),
    Column("provider", Text, nullable=False, server_default="TWILIO"),
    Column("status", Text, nullable=False, server_default="AVAILABLE"),
    Column("capabilities", Text, nullable=False, server_default="OUTBOUND"),
    Column("custom", Boolean, nullable=False, server_default=text("false")),
    Column("location", Text),
    *_timestamps(),
    CheckConstraint(r"number ~ '^\+[1-9][0-9]{6,14}$'", name="e164"),
    UniqueConstraint("company_id", "number"),
    UniqueConstraint("company_id", "id"),
)

agents = _table(
    "agents",
    Column("id", Uuid, primary_key=True),
    Column("company_id", Uuid, ForeignKey("companies.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("focus", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("duration", Interval, nullable=False),
    Column("phone_number_id", Uuid),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column("deleted_at", _INSTANT),
    *_timestamps(),
    CheckConstraint("type IN ('PHONE', 'ONLINE')", name="type"),
    CheckConstraint("focus IN ('GENERIC', 'SCREENING', 'OUTREACH', 'LANGUAGE_TEST')", name="focus"),
    CheckConstraint("type <> 'PHONE' OR phone_number_id IS NOT NULL", name="a_phone_agent_has_a_caller_id"),
    UniqueConstraint("company_id", "id"),
    ForeignKeyConstraint(["company_id", "phone_number_id"], ["phone_numbers.company_id", "phone_numbers.id"]),
    Index(None, "company_id", "created_at", "id"),
)

jobs = _table(
    "jobs",
    Column("id", Uuid, primary_key=True),
    Column("company_id", Uuid, ForeignKey("companies.id"), nullable=False),
    # Texts are deleted with the job. The row stays for its interviews.
    Column("title", Text),
    Column("description", Text),
    Column("status", Text, nullable=False),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column("external_id", Text),
    # Hash of the request that created the row, if it named an external id. Compared when the id is sent again.
    Column("content_hash", LargeBinary),
    Column("deleted_at", _INSTANT),
    *_timestamps(),
    CheckConstraint("status IN ('OPEN', 'CLOSED')", name="status"),
    CheckConstraint("num_nulls(title, description) = CASE WHEN deleted_at IS NULL THEN 0 ELSE 2 END", name="texts"),
    UniqueConstraint("company_id", "id"),
    _unique_external_id("jobs"),
    Index(None, "company_id", "created_at", "id"),
    Index(None, "company_id", "updated_at"),
)

candidates = _table(
    "candidates",
    # Both are the key, for foreign keys that keep the rows of a company together.
    Column("id", Uuid, primary_key=True),
    Column("company_id", Uuid, ForeignKey("companies.id"), primary_key=True),
    Column("first_name", Text),
    Column("last_name", Text),
    Column("email", Text),
    Column("phone_number", Text),
    Column("timezone", Text),
    Column("gdpr_expiry_date", Date, nullable=False),
    Column("status", Text, nullable=False, server_default="APPLIED"),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column("external_id", Text),
    # Hash of the request that created the row, if it named an external id. Compared when the id is sent again.
    Column("content_hash", LargeBinary),
    Column("erased_at", _INSTANT),
    # While interviews of an erased person are left to be cancelled: when a worker may cancel the next ones.
    Column("leaving_at", _INSTANT),
    *_timestamps(),
    CheckConstraint(r"phone_number ~ '^\+[1-9][0-9]{6,14}$'", name="e164"),
    CheckConstraint(
        "CASE WHEN erased_at IS NULL THEN first_name IS NOT NULL AND last_name IS NOT NULL"
        " AND (email IS NOT NULL OR phone_number IS NOT NULL)"
        " ELSE num_nonnulls(first_name, last_name, email, phone_number) = 0 END",
        name="somebody_or_nobody",
    ),
    CheckConstraint("status IN ('APPLIED', 'IN_PROCESS', 'REJECTED', 'ACCEPTED')", name="status"),
    _unique_external_id("candidates", "erased_at"),
    Index(None, "company_id", "created_at"),
    Index(None, "company_id", "status", "created_at"),
    Index(None, "company_id", "updated_at"),
    # For the search of operators, by the function `candidates_of_number`. Half the size of a B-tree.
    Index("ix_candidates_phone_number", "phone_number", postgresql_using="hash"),
    _index("ix_candidates_leaving_at", "leaving_at", where="leaving_at IS NOT NULL"),
    # For parts of names and e-mail addresses. Used by the function `candidates_found`.
    Index(
        "ix_candidates_search",
        literal_column("candidate_search_keys(company_id, (first_name || ' '::text) || last_name)"),
        literal_column("candidate_search_keys(company_id, email)"),
        postgresql_using="gin",
        postgresql_with={"fastupdate": False},
    ),
)

assignments = _table(
    "assignments",
    # The jobs that a candidate is considered for.
    Column("candidate_id", Uuid, primary_key=True),
    Column("job_id", Uuid, primary_key=True),
    Column("company_id", Uuid, nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    ForeignKeyConstraint(["company_id", "candidate_id"], ["candidates.company_id", "candidates.id"]),
    ForeignKeyConstraint(["company_id", "job_id"], ["jobs.company_id", "jobs.id"]),
    Index(None, "job_id"),
)

interviews = _table(
    "interviews",
    # Both are the key, for foreign keys that keep the rows of a company together.
    Column("id", Uuid, primary_key=True),
    Column("company_id", Uuid, ForeignKey("companies.id"), primary_key=True),
    Column("candidate_id", Uuid, nullable=False),
    Column("agent_id", Uuid, nullable=False),
    Column("job_id", Uuid),
    Column("type", Text, nullable=False),
    Column("focus", Text, nullable=False),
    Column("duration", Interval, nullable=False),
    Column("caller_number", Text),
    Column("status", Text, nullable=False),
    Column("is_test", Boolean, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("external_id", Text),
    # Hash of the request that created the row, if it named an external id. Compared when the id is sent again.
    Column("content_hash", LargeBinary),
    Column("expires_at", _INSTANT, nullable=False),
    Column("expires_by_default", Boolean, nullable=False, server_default=text("true")),
    # Only of ONLINE interviews: for a PHONE interview the attempt has the time.
    Column("scheduled_at", _INSTANT),
    Column("finished_at", _INSTANT),
    Column("deleted_at", _INSTANT),
    *_timestamps(),
    CheckConstraint("type IN ('PHONE', 'ONLINE')", name="type"),
    CheckConstraint("status IN ('SCHEDULED', 'COMPLETED', 'FAILED', 'CANCELLED')", name="status"),
    CheckConstraint("(status = 'SCHEDULED') = (finished_at IS NULL)", name="finished_when_over"),
    CheckConstraint("type <> 'PHONE' OR caller_number IS NOT NULL", name="a_phone_interview_has_a_caller_id"),
    ForeignKeyConstraint(["company_id", "candidate_id"], ["candidates.company_id", "candidates.id"]),
    ForeignKeyConstraint(["company_id", "agent_id"], ["agents.company_id", "agents.id"]),
    ForeignKeyConstraint(["company_id", "job_id"], ["jobs.company_id", "jobs.id"]),
    _unique_external_id("interviews"),
    Index(None, "company_id", "created_at"),
    Index(None, "company_id", "status", "created_at"),
    Index(None, "company_id", "updated_at"),
    # Only of ONLINE interviews.
    _index(None, "company_id", "scheduled_at", where="scheduled_at IS NOT NULL"),
    Index(None, "candidate_id"),
    Index(None, "agent_id"),
    Index(None, "job_id"),
)

carrier_accounts = _table(
    "carrier_accounts",
    Column("id", SmallInteger, primary_key=True),
    Column("account_sid", Text, nullable=False, unique=True),
    Column("calls_per_second", Numeric(8, 3), nullable=False),
    Column("max_calls", Integer, nullable=False),
    Column("next_slot_at", _INSTANT, nullable=False),
    Column("paused_at", _INSTANT),
    Column("pause_reason", Text),
    # The breaker: consecutive calls that the carrier did not certainly take, the next probe, and the last probe that
    # the carrier answered.
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("down_until", _INSTANT),
    Column("down_cause", Text),
    Column("answered_at", _INSTANT),
    # Consecutive trial calls that failed after such an answer.
    Column("trials", Integer, nullable=False, server_default=text("0")),
    # The database server and timeline on which calls were last claimed.
    Column("claimed_on", Text),
    # The copy of that database: every restored dump is another copy.
    Column("claimed_copy", Text),
    *_timestamps(),
    CheckConstraint("calls_per_second > 0 AND max_calls >= 0", name="limits_are_positive"),
    CheckConstraint("(paused_at IS NULL) = (pause_reason IS NULL)", name="a_pause_has_a_reason"),
)

# Scopes whose orders wait because the carrier refuses or fails them: a country, or a company with one of its numbers.
# Each scope has its own breaker.
carrier_backoffs = _table(
    "carrier_backoffs",
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("account_id", SmallInteger, ForeignKey("carrier_accounts.id"), nullable=False),
    Column("company_id", Uuid, ForeignKey("companies.id")),
    Column("caller", Text),
    Column("country", Text),
    Column("failures", Integer, nullable=False),
    Column("trials", Integer, nullable=False),
    Column("down_until", _INSTANT),
    Column("answered_at", _INSTANT),
    Column("cause", Text, nullable=False),
    # The carrier was probed since the breaker opened.
    Column("is_asked", Boolean, nullable=False),
    # The carrier has taken a call of another company since then.
    Column("others_work", Boolean, nullable=False),
    *_timestamps(),
    CheckConstraint(
        "num_nonnulls(country, caller) = 1 AND num_nonnulls(company_id, caller) <> 1", name="a_country_or_a_caller"
    ),
    UniqueConstraint("company_id", "caller", "account_id"),
    UniqueConstraint("country", "account_id"),
)

arrows = _table(
    "arrows",
    # '' means "none", because a foreign key with a NULL in it is not checked.
    Column("event", Text, primary_key=True),
    Column("from_state", Text, primary_key=True),
    Column("to_state", Text, primary_key=True),
    Column("reason", Text, primary_key=True),
)


def _state_and_reason() -> str:
    reasons: dict[AttemptState, list[Reason]] = {}
    for reason, state in ENDS.items():
        reasons.setdefault(state, []).append(reason)
    pairs = [
        f"(state = '{state.value}' AND reason IN ({', '.join(repr(each.value) for each in of_state)}))"
        for state, of_state in reasons.items()
    ]
    allowed = " OR ".join(["(state IN ('PENDING', 'IN_PROGRESS') AND reason IS NULL)", *pairs])
    # A CHECK lets NULL pass, and a comparison with a missing reason is NULL.
    return f"({allowed}) IS TRUE"


attempts = _table(
    "attempts",
    Column("id", Uuid, primary_key=True),
    Column("interview_id", Uuid, nullable=False),
    Column("company_id", Uuid, nullable=False),
    Column("chain_id", Uuid, nullable=False),
    Column("retry_number", Integer, nullable=False),
    Column("manual", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("phase", Text),
    Column("reason", Text),
    Column("due_at", _INSTANT, nullable=False),
    Column("expires_at", _INSTANT, nullable=False),
    Column("released_until", _INSTANT),
    # Not released before: a worker found the row unreadable. It does not concern workers that can read it.
    Column("unreadable_until", _INSTANT),
    # It cannot be released: see `attempt_holds`.
    Column("held_until", _INSTANT),
    Column("schedule", JSONB, nullable=False),
    Column("warnings", ARRAY(Text), nullable=False),
    Column("number_hash", LargeBinary),
    Column("epoch", Integer, nullable=False),
    Column("token", Text),
    Column("account_id", SmallInteger, ForeignKey("carrier_accounts.id")),
    Column("claimed_at", _INSTANT),
    Column("lease_until", _INSTANT),
    Column("call_sid", Text),
    Column("heard_rank", SmallInteger, nullable=False),
    Column("unknown_at", _INSTANT),
    Column("look_at", _INSTANT),
    Column("listed_at", _INSTANT),
    Column("search_at", _INSTANT),
    Column("looks", Integer, nullable=False),
    Column("not_placed", Integer, nullable=False),
    Column("machine_detection", Text),
    Column("answered_by", Text),
    Column("duration", Interval),
    # The end of a call that waits for the verdict of asynchronous machine detection, its notifications or a report.
    Column("hung_up_at", _INSTANT),
    Column("ended_at", _INSTANT),
    # Personal data, from the claim until the call has ended. Then it is deleted.
    Column("called_number", Text),
    Column("hang_up", Text),
    Column("cause_is_lost", Boolean),
    Column("instructions_failed", Boolean),
    # The callback's code for a failed call that waits for the cause in its notifications. 0: it had none.
    Column("sip_code", SmallInteger),
    Column("deleted_at", _INSTANT),
    # An operator's decision about an unknown outcome.
    Column("decision", Text),
    Column("decided_at", _INSTANT),
    # The closing seal of its history. NULL: no entry has a seal.
    Column("history_seal", LargeBinary),
    # Reported by the conversation of an answered call, or awaited until then.
    Column("outcome", Text),
    Column("outcome_at", _INSTANT),
    # Personal data, until the person is erased or the attempt deleted.
    Column("outcome_note", Text),
    Column("outcome_until", _INSTANT),
    Column("call_back", JSONB),
    Column("call_backs", SmallInteger, nullable=False, server_default=text("0")),
    *_timestamps(),
    ForeignKeyConstraint(["company_id", "interview_id"], ["interviews.company_id", "interviews.id"]),
    CheckConstraint(_state_and_reason(), name="state_and_reason"),
    CheckConstraint("(state = 'IN_PROGRESS') = (phase IS NOT NULL)", name="a_phase_in_progress_only"),
    CheckConstraint("phase IN ('DIALLING', 'PLACED', 'UNKNOWN')", name="phase"),
    CheckConstraint(
        "state <> 'IN_PROGRESS' OR num_nulls(token, claimed_at, account_id, number_hash) = 0",
        name="in_progress_is_claimed",
    ),
    CheckConstraint("(phase IS NOT DISTINCT FROM 'DIALLING') = (lease_until IS NOT NULL)", name="dialling_has_a_lease"),
    CheckConstraint("phase <> 'PLACED' OR call_sid IS NOT NULL", name="placed_is_named"),
    CheckConstraint("phase <> 'UNKNOWN' OR unknown_at IS NOT NULL", name="unknown_since"),
    CheckConstraint("phase IS NULL OR phase = 'DIALLING' OR look_at IS NOT NULL", name="somebody_looks_for_its_end"),
    CheckConstraint(
        "state <> 'PENDING' OR num_nonnulls(claimed_at, lease_until, call_sid, unknown_at, look_at) = 0",
        name="pending_is_not_called",
    ),
    CheckConstraint("(state IN ('PENDING', 'IN_PROGRESS')) = (ended_at IS NULL)", name="ended_when_over"),
    CheckConstraint("reason IS NOT DISTINCT FROM 'TEST' OR number_hash IS NOT NULL", name="a_call_has_a_line"),
    CheckConstraint("machine_detection IN ('OFF', 'SYNC', 'ASYNC')", name="machine_detection"),
    CheckConstraint("hang_up IN ('QUEUED_PAST_CLOSING', 'COMPANY_DELETED')", name="hang_up"),
    CheckConstraint("decision IN ('RANG', 'DID_NOT_RING', 'LEFT')", name="decision"),
    CheckConstraint("(decision IS NULL) = (decided_at IS NULL)", name="decided_at_an_instant"),
    CheckConstraint("decision IS NULL OR state NOT IN ('PENDING', 'IN_PROGRESS')", name="decided_is_over"),
    CheckConstraint("deleted_at IS NULL OR state NOT IN ('PENDING', 'IN_PROGRESS')", name="deleted_is_over"),
    CheckConstraint(
        "look_at IS NULL OR state = 'IN_PROGRESS' OR (reason IS NOT DISTINCT FROM 'OUTCOME_UNKNOWN'"
        " AND call_sid IS NOT NULL)",
        name="a_live_leg_has_a_name",
    ),
    CheckConstraint("(outcome IS NULL) = (outcome_at IS NULL)", name="reported_at_an_instant"),
    CheckConstraint("outcome_note IS NULL OR outcome IS NOT NULL", name="a_note_is_of_an_outcome"),
    CheckConstraint(
        "outcome_until IS NULL OR (outcome IS NULL AND reason IS NOT DISTINCT FROM 'ANSWERED')",
        name="only_an_answered_call_is_awaited",
    ),
    CheckConstraint(
        "(call_back IS NOT NULL) = (outcome IS NOT DISTINCT FROM 'CALL_BACK')", name="a_call_back_has_a_time"
    ),
    # Rules F4 to F6, and one attempt for each call SID.
    # The open attempts of one company are found without reading those of others.
    _index(
        "uq_attempts_one_open_per_interview",
        "interview_id",
        where="state IN ('PENDING', 'IN_PROGRESS')",
        unique=True,
        postgresql_include=["company_id"],
    ),
    _index("uq_attempts_one_call_per_number", "number_hash", where="state = 'IN_PROGRESS'", unique=True),
    _index("uq_attempts_call_sid", "call_sid", where="call_sid IS NOT NULL", unique=True),
    # An expression that no other index has: see `attempt_holds.first_of_company`.
    _index(
        "ix_attempts_releasable",
        "company_id",
        "manual",
        text("greatest(due_at, held_until)"),
        where="state = 'PENDING' AND held_until IS NULL",
    ),
    _index(
        "ix_attempts_held_by_number",
        "number_hash",
        "company_id",
        "due_at",
        where="state = 'PENDING' AND held_until IS NOT NULL",
    ),
    # Only for ranges of time: see `attempt_holds`.
    _index("ix_attempts_held", "company_id", "held_until", where="state = 'PENDING' AND held_until > '-infinity'"),
    _index("ix_attempts_due", "due_at", where="state = 'PENDING'"),
    _index("ix_attempts_due_by_company", "company_id", "due_at", where="state = 'PENDING'"),
    _index(
        "ix_attempts_released", "company_id", "released_until", where="state = 'PENDING' AND released_until IS NOT NULL"
    ),
    # For attempts that wait for a line. Half the size of a B-tree of these hashes.
    _index("ix_attempts_waiting_by_number", "number_hash", where="state = 'PENDING'", postgresql_using="hash"),
    # By the version of the tz database that an attempt was resolved with.
    _index("ix_attempts_zone_data", text("(schedule ->> 'tzdata_version')"), where="state = 'PENDING'"),
    _index("ix_attempts_expiry", "expires_at", where="state = 'PENDING'"),
    _index("ix_attempts_in_progress", "company_id", where="state = 'IN_PROGRESS'"),
    _index("ix_attempts_lease", "lease_until", where="lease_until IS NOT NULL"),
    _index("ix_attempts_look", "look_at", where="look_at IS NOT NULL"),
    _index("ix_attempts_cause_lost", "company_id", where="cause_is_lost"),
    _index("ix_attempts_without_instructions", "claimed_at", where="instructions_failed"),
    _index("ix_attempts_without_instructions_of_company", "company_id", "claimed_at", where="instructions_failed"),
    # For a trial call of the voice server that a machine has answered.
    _index("ix_attempts_of_machines", "claimed_at", where="reason = 'VOICEMAIL'"),
    _index("ix_attempts_search", "search_at", where="search_at IS NOT NULL"),
    # Numbers that are not called again: the person asked for that, or is not the candidate.
    _index("ix_attempts_refused", "number_hash", where="outcome IN ('OPTED_OUT', 'WRONG_PERSON')"),
    _index("ix_attempts_outcome", "outcome_until", where="outcome_until IS NOT NULL"),
    # For the list of unknown outcomes that an operator has yet to decide.
    _index("ix_attempts_unknown", "company_id", where="reason = 'OUTCOME_UNKNOWN' AND decided_at IS NULL"),
    # For pending attempts that a clock from the future wrote. A B-tree would have an entry for each event of a call.
    # The index has all attempts: a range is summarised when the first row of the next one enters the index. In an index
    # of pending attempts, a range before one that begins with another attempt would be read by each sweep until the
    # next VACUUM.
    Index(
        "ix_attempts_updated_at",
        "updated_at",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 32, "autosummarize": True},
    ),
    # The newest attempts of an interview are read without the others.
    Index(None, "interview_id", "created_at"),
    # For lists by the time of the call. An attempt enters it once, at its end. Progress of a call changes neither
    # `due_at` nor `ended_at`, so its updates stay HOT.
    _index("ix_attempts_ended_by_company", "company_id", "due_at", where="ended_at IS NOT NULL"),
    # The first attempt of a chain has the chain's id.
    _index("ix_attempts_retries", "chain_id", where="retry_number > 0"),
)

attempt_tokens = _table(
    "attempt_tokens",
    # Each claim's token stays and names its attempt, so that a late callback always finds it.
    Column("token", Text, primary_key=True),
    Column("attempt_id", Uuid, ForeignKey("attempts.id"), nullable=False),
    Column("claimed_at", _INSTANT, nullable=False),
    # The call of this claim that was proven never to have been dialled: callbacks about it are outdated.
    Column("closed_sid", Text),
    Index(None, "attempt_id"),
)

stray_calls = _table(
    "stray_calls",
    # Calls that must not exist: a second call of a claim or to a number. Each is ended at the carrier.
    Column("call_sid", Text, primary_key=True),
    Column("attempt_id", Uuid, ForeignKey("attempts.id"), nullable=False),
    Column("seen_at", _INSTANT, nullable=False),
    Column("look_at", _INSTANT),
    Index(None, "attempt_id"),
    _index("ix_stray_calls_look", "look_at", where="look_at IS NOT NULL"),
)

recomputations = _table(
    "reresolutions",
    # Hours, zones or a number have changed: pending attempts are resolved again, in the order of their interviews.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("company_id", Uuid, ForeignKey("companies.id"), nullable=False),
    Column("candidate_id", Uuid),
    # The id of an attempt. Only the previous version uses it.
    Column("after_id", Uuid),
    # Interviews up to this id are done, if that was in the present pass.
    Column("after_interview_id", Uuid),
    Column("after_in_last_pass", Boolean),
    # Two passes: the second one, a little later, sees attempts that were being created under the old settings.
    Column("is_last_pass", Boolean, nullable=False),
    Column("not_before", _INSTANT, nullable=False),
    Column("asked_at", _INSTANT, nullable=False),
    Column("rung_at", _INSTANT, nullable=False),
    Index(None, "company_id"),
    Index(None, "rung_at"),
)

users = _table(
    "users",
    Column("id", Uuid, primary_key=True),
    # In lower case, so that each address exists once.
    Column("email", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    *_timestamps(),
    CheckConstraint("email = lower(email)", name="email_in_lower_case"),
)

memberships = _table(
    "memberships",
    Column("company_id", Uuid, ForeignKey("companies.id"), primary_key=True),
    Column("user_id", Uuid, ForeignKey("users.id"), primary_key=True),
    Column("role", Text, nullable=False),
    *_timestamps(),
    CheckConstraint("role IN ('OWNER', 'ADMIN')", name="role"),
    Index(None, "user_id"),
    _index("uq_memberships_one_owner", "company_id", where="role = 'OWNER'", unique=True),
)

invitations = _table(
    "invitations",
    Column("id", Uuid, primary_key=True),
    Column("company_id", Uuid, ForeignKey("companies.id"), nullable=False),
    Column("email", Text, nullable=False),
    Column("expires_at", _INSTANT, nullable=False),
    Column("accepted_at", _INSTANT),
    Column("revoked_at", _INSTANT),
    Column("sent_at", _INSTANT),
    Column("tries", Integer, nullable=False),
    # The next try to send it. NULL when it was sent, or is no longer open.
    Column("send_at", _INSTANT),
    *_timestamps(),
    CheckConstraint("email = lower(email)", name="email_in_lower_case"),
    CheckConstraint("num_nonnulls(accepted_at, revoked_at) < 2", name="one_end"),
    Index(None, "company_id"),
    _index(
        "uq_invitations_one_open_per_company",
        "company_id",
        where="accepted_at IS NULL AND revoked_at IS NULL",
        unique=True,
    ),
    _index("ix_invitations_to_send", "send_at", where="send_at IS NOT NULL"),
)

invitation_tokens = _table(
    "invitation_tokens",
    # One for each mail that may have been sent, stored before the mail: whichever mail arrives, its token is known.
    Column("token_hash", LargeBinary, primary_key=True),
    Column("invitation_id", Uuid, ForeignKey("invitations.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    Index(None, "invitation_id"),
)

usage = _table(
    "usage",
    # Booked once, when the call ends, with the unit and price of that day. Rows outlive their company, so there are no
    # foreign keys.
    Column("attempt_id", Uuid, primary_key=True),
    Column("company_id", Uuid, nullable=False),
    Column("ats_principal_id", Uuid),
    Column("interview_id", Uuid, nullable=False),
    Column("booked_at", _INSTANT, nullable=False),
    Column("billing_system", Text, nullable=False),
    Column("cost_key", Text, nullable=False),
    Column("talked", Interval, nullable=False),
    Column("credits", Numeric(14, 6)),
    CheckConstraint("billing_system IN ('minutes', 'credits')", name="billing_system"),
    CheckConstraint("(billing_system = 'credits') = (credits IS NOT NULL)", name="credits_by_unit"),
    Index(None, "company_id", "booked_at"),
    Index(None, "ats_principal_id", "booked_at"),
)

erasures = _table(
    "erasures",
    # One row for each deleted company: the certificate that remains.
    Column("company_id", Uuid, primary_key=True),
    Column("ats_principal_id", Uuid),
    Column("asked_at", _INSTANT, nullable=False),
    Column("rung_at", _INSTANT, nullable=False),
    Column("finished_at", _INSTANT),
    Column("erased", JSONB, nullable=False),
    _index("ix_erasures_open", "rung_at", where="finished_at IS NULL"),
    Index(None, "asked_at", "company_id"),
)

attempt_history = _table(
    "attempt_history",
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("attempt_id", Uuid, ForeignKey("attempts.id"), nullable=False),
    Column("at", _INSTANT, nullable=False),
    Column("event", Text, nullable=False),
    Column("from_state", Text, nullable=False),
    Column("to_state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("actor", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    # NULL in rows of release 0.2.0 and earlier.
    Column("seal", LargeBinary),
    ForeignKeyConstraint(
        ["event", "from_state", "to_state", "reason"],
        ["arrows.event", "arrows.from_state", "arrows.to_state", "arrows.reason"],
    ),
    Index(None, "attempt_id"),
)

lines = _table(
    "lines",
    Column("number_hash", LargeBinary, primary_key=True),
    Column("attempt_id", Uuid, ForeignKey("attempts.id")),
    # The interview of the last call: its retries need not wait for `free_at`. NULL after an unknown outcome: all wait.
    Column("interview_id", Uuid),
    Column("free_at", _INSTANT, nullable=False),
    # The number's country. NULL until a worker has determined it.
    Column("country", Text),
    # When the carrier last refused a call because it blocks the number.
    Column("refused_at", _INSTANT),
    # Held attempts wait for this line.
    Column("is_awaited", Boolean, nullable=False, server_default=text("false")),
    Index(None, "free_at"),
    _index("ix_lines_awaited", "free_at", "number_hash", where="is_awaited AND attempt_id IS NULL"),
    _index("ix_lines_refused_at", "refused_at", "country", where="refused_at IS NOT NULL"),
    # Partial, so that PostgreSQL does not treat the column as a key: a claim then does not wait for transactions that
    # have locked the line only against deletion.
    _index("uq_lines_attempt_id", "attempt_id", where="attempt_id IS NOT NULL", unique=True),
)

inbox = _table(
    "inbox",
    Column("id", Uuid, primary_key=True),
    Column("seq", BigInteger, Identity(always=True), nullable=False),
    Column("principal_id", Uuid, nullable=False),
    # The principal's key. NULL in rows of the previous version.
    Column("key_id", Uuid),
    # NULL for commands that create or delete a company: the answer outlives it, so that a repetition recreates nothing.
    Column("company_id", Uuid, ForeignKey("companies.id")),
    Column("idempotency_key", Text),
    Column("request_hash", LargeBinary, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", JSONB),
    Column("interview_id", Uuid),
    # Of a report that a number is not to be called again: until it is applied, the last look blocks the number.
    Column("number_hash", LargeBinary),
    Column("received_at", _INSTANT, nullable=False),
    Column("rung_at", _INSTANT, nullable=False),
    Column("applied_at", _INSTANT),
    Column("answer", JSONB),
    Column("failures", Integer, nullable=False),
    Column("first_failed_at", _INSTANT),
    # The type and place of the last error, without its text, which may contain personal data.
    Column("failed_with", Text),
    Column("quarantined_at", _INSTANT),
    # The request may return the answer as its response until then.
    Column("awaited_until", _INSTANT),
    CheckConstraint("(applied_at IS NULL) = (answer IS NULL)", name="applied_is_answered"),
    CheckConstraint("(applied_at IS NULL) = (body IS NOT NULL)", name="a_body_until_applied"),
    CheckConstraint("number_hash IS NULL OR applied_at IS NULL", name="a_number_until_applied"),
    _index(
        "uq_inbox_idempotency_key", "principal_id", "idempotency_key", where="idempotency_key IS NOT NULL", unique=True
    ),
    Index(None, "company_id"),
    _index("ix_inbox_answered", "applied_at", where="applied_at IS NOT NULL"),
    _index(
        "ix_inbox_owed",
        "awaited_until",
        where="applied_at < awaited_until AND answer ? 'refusal' AND quarantined_at IS NULL",
    ),
    _index("ix_inbox_waiting", "rung_at", where="applied_at IS NULL"),
    # Nearly empty. No other index has its column, so that last looks read no other one however few commands wait.
    _index("ix_inbox_refusals", "number_hash", where="number_hash IS NOT NULL"),
    _index("ix_inbox_waiting_by_interview", "interview_id", "seq", where="applied_at IS NULL"),
)

batches = _table(
    "batches",
    Column("id", Uuid, primary_key=True),
    Column("company_id", Uuid, ForeignKey("companies.id"), nullable=False),
    Column("principal_id", Uuid, nullable=False),
    Column("key_id", Uuid, nullable=False),
    Column("name", Text),
    Column("state", Text, nullable=False),
    Column("total", Integer, nullable=False),
    Column("applied", Integer, nullable=False, server_default=text("0")),
    Column("existing", Integer, nullable=False, server_default=text("0")),
    Column("refused", Integer, nullable=False, server_default=text("0")),
    Column("cancelled", Integer, nullable=False, server_default=text("0")),
    Column("first_due_at", _INSTANT),
    # No worker looks at it before. Companies take turns in this order.
    Column("work_at", _INSTANT, nullable=False),
    # Interviews of items up to this index were cancelled. Only of cancelled batches.
    Column("cancelled_to", Integer, nullable=False, server_default=text("-1")),
    Column("started_at", _INSTANT),
    Column("finished_at", _INSTANT),
    *_timestamps(),
    CheckConstraint("state IN ('ACCEPTED', 'RUNNING', 'PAUSED', 'COMPLETED', 'CANCELLED')", name="state"),
    CheckConstraint("applied + refused + cancelled <= total", name="no_item_counts_twice"),
    CheckConstraint("existing <= applied", name="existing_items_are_applied"),
    CheckConstraint(
        "state NOT IN ('COMPLETED', 'CANCELLED') OR applied + refused + cancelled = total",
        name="no_item_waits_at_the_end",
    ),
    CheckConstraint(
        "(state = 'COMPLETED' AND finished_at IS NOT NULL) OR state = 'CANCELLED' OR"
        " (state NOT IN ('COMPLETED', 'CANCELLED') AND finished_at IS NULL)",
        name="finished_at_its_end",
    ),
    Index(None, "company_id", "created_at"),
    Index(None, "created_at"),
    _index("ix_batches_unfinished", "work_at", where="finished_at IS NULL"),
    _index("ix_batches_finished_at", "finished_at", where="finished_at IS NOT NULL"),
)

batch_items = _table(
    "batch_items",
    Column("batch_id", Uuid, ForeignKey("batches.id"), primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("company_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    # The request. It may be personal data.
    Column("body", JSONB),
    # NULL for an applied item: its interview has the id.
    Column("external_id", Text),
    Column("error_code", Text),
    Column("error", JSONB),
    Column("interview_id", Uuid),
    Column("existed", Boolean, nullable=False, server_default=text("false")),
    Column("failures", SmallInteger, nullable=False, server_default=text("0")),
    CheckConstraint("state IN ('WAITING', 'APPLIED', 'REFUSED', 'CANCELLED')", name="state"),
    CheckConstraint("(state = 'WAITING') = (body IS NOT NULL)", name="a_body_while_it_waits"),
    CheckConstraint("(state = 'APPLIED') = (interview_id IS NOT NULL)", name="an_interview_if_applied"),
    CheckConstraint("(state = 'REFUSED') = (error_code IS NOT NULL)", name="an_error_if_refused"),
    Index(None, "company_id"),
    Index("ix_batch_items_by_state", "batch_id", "state", "index"),
    # Without it, each look for the next work reads all waiting items of the batch.
    _index("ix_batch_items_failed", "batch_id", "failures", "index", where="state = 'WAITING' AND failures > 0"),
)

tallies = _table(
    "tallies",
    # Totals of counters and histograms. No company, person or number.
    Column("name", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("n", BigInteger, nullable=False),
    Column("sum", Double, nullable=False),
    Column("buckets", ARRAY(BigInteger), nullable=False),
)

tally_entries = _table(
    "tally_entries",
    # Amounts that are not in the totals yet. Rows are only appended and deleted, so that no process waits for another.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("entries", JSONB, nullable=False),
)

caller_days = _table(
    "caller_days",
    # The calls of each caller id that ended on a day of UTC.
    Column("company_id", Uuid, primary_key=True),
    Column("phone_number_id", Uuid, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("calls", Integer, nullable=False),
    Column("answered", Integer, nullable=False),
    Column("declined", Integer, nullable=False),
    Column("blocked", Integer, nullable=False),
    # Each alarm is raised once for a day.
    Column("is_blocked_reported", Boolean, nullable=False, server_default=text("false")),
    Column("is_rate_reported", Boolean, nullable=False, server_default=text("false")),
    CheckConstraint("answered + declined + blocked <= calls", name="parts_of_the_calls"),
    ForeignKeyConstraint(
        # Release 0.2.0 erases a company's numbers without knowing this table.
        ["company_id", "phone_number_id"],
        ["phone_numbers.company_id", "phone_numbers.id"],
        ondelete="CASCADE",
    ),
    Index(None, "day"),
)

caller_results = _table(
    "caller_results",
    # Ends of calls that are not in `caller_days` yet. Rows are only appended and deleted, so that no process waits for
    # another, and refer to no other row, so that no call locks the row of its number.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("phone_number_id", Uuid, nullable=False),
    Column("day", Date, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("answered", Integer, nullable=False),
    Column("declined", Integer, nullable=False),
    Column("blocked", Integer, nullable=False),
)

carrier_events = _table(
    "carrier_events",
    Column("id", Uuid, primary_key=True),
    Column("token", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("raw", JSONB, nullable=False),
    Column("received_at", _INSTANT, nullable=False),
    Column("rung_at", _INSTANT, nullable=False),
    Column("heard_at", _INSTANT),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("first_failed_at", _INSTANT),
    Column("failed_with", Text),
    Column("quarantined_at", _INSTANT),
    _index("ix_carrier_events_heard", "heard_at", where="heard_at IS NOT NULL"),
    _index("ix_carrier_events_unheard", "rung_at", where="heard_at IS NULL"),
    # The fingerprint contains the token. With it, the callbacks of a call are next to each other, and found by it.
    UniqueConstraint("token", "fingerprint"),
)

alarms = _table(
    "alarms",
    # One row for each kind and its subjects until it is acknowledged. A repetition raises the count.
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    # Ids of what the alarm is about, by the names of the log's fields.
    Column("subjects", JSONB, nullable=False),
    Column("first_seen_at", _INSTANT, nullable=False),
    Column("last_seen_at", _INSTANT, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("acknowledged_at", _INSTANT),
    Column("acknowledged_by", Text),
    Column("note", Text),
    Column("tries", Integer, nullable=False),
    # The next try to post it to the webhook. NULL when it was posted, acknowledged or given up.
    Column("post_at", _INSTANT),
    Column("posted_at", _INSTANT),
    CheckConstraint("kind ~ '^[A-Z0-9_]{1,80}$'", name="kind"),
    CheckConstraint("jsonb_typeof(subjects) = 'object' AND length(subjects::text) <= 800", name="few_subjects"),
    CheckConstraint("num_nonnulls(acknowledged_at, acknowledged_by) IN (0, 2)", name="acknowledged_by_an_actor"),
    CheckConstraint("acknowledged_at IS NULL OR post_at IS NULL", name="acknowledged_is_not_posted"),
    _index("uq_alarms_open", "kind", "subjects", where="acknowledged_at IS NULL", unique=True),
    _index("ix_alarms_to_post", "post_at", where="post_at IS NOT NULL"),
    Index("ix_alarms_company", text("(subjects ->> 'company_id')"), "id"),
    Index(None, "kind", "id"),
)

audit = _table(
    "audit",
    # Acts of operators. Rows outlive what they are about, so there are no foreign keys. No role but the owner may
    # change or delete one.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", _INSTANT, nullable=False),
    Column("actor", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("target_kind", Text, nullable=False),
    Column("target_id", Text),
    Column("company_id", Uuid),
    Column("reason", Text),
    Column("before", JSONB, nullable=False),
    Column("after", JSONB, nullable=False),
    Column("trace_id", Text),
    Index(None, "actor", "id"),
    Index(None, "verb", "id"),
    Index(None, "target_id", "id"),
    Index(None, "company_id", "id"),
)

installation_marks = _table(
    "installation_marks",
    # Keyed hashes of the settings that belong to this database. The first process that starts writes them.
    Column("setting", Text, primary_key=True),
    Column("mark", LargeBinary, nullable=False),
    Column("since", _INSTANT, nullable=False),
)

console_sessions = _table(
    "console_sessions",
    Column("id", Uuid, primary_key=True),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    Column("expires_at", _INSTANT, nullable=False),
    Column("last_used_at", _INSTANT, nullable=False),
    Column("revoked_at", _INSTANT),
    CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="role"),
    Index(None, "expires_at"),
)

sign_in_links = _table(
    "sign_in_links",
    Column("id", Uuid, primary_key=True),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", _INSTANT, nullable=False),
    Column("expires_at", _INSTANT, nullable=False),
    Column("used_at", _INSTANT),
    CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="role"),
    Index(None, "expires_at"),
)

console_acts = _table(
    "console_acts",
    # The token of each form that was sent, so that sending a form twice acts once.
    Column("token", Text, primary_key=True),
    Column("sent_at", _INSTANT, nullable=False),
    Index(None, "sent_at"),
)

# In the order in which they are written, by `entry`. Numbering gives each its place and its sequence.
events = _table(
    "events",
    # First the columns that `kept_events` returns, in its order. No foreign keys: the event of a deletion outlives the
    # company.
    Column("id", Uuid, primary_key=True),
    # NULL: about an endpoint of an ATS key, for all its companies.
    Column("company_id", Uuid),
    Column("ats_principal_id", Uuid),
    Column("interview_id", Uuid),
    Column("attempt_id", Uuid),
    Column("type", Text, nullable=False),
    Column("occurred_at", _INSTANT, nullable=False),
    # Ids, states, codes and times. No name, number, address, title or metadata.
    Column("data", JSONB, nullable=False),
    Column("entry", BigInteger, Identity(always=True), nullable=False),
    Column("place", BigInteger),
    Column("sequence", Integer),
    CheckConstraint("sequence IS NULL OR (place IS NOT NULL AND interview_id IS NOT NULL)", name="numbered_at_once"),
    CheckConstraint(
        "company_id IS NOT NULL OR (ats_principal_id IS NOT NULL AND interview_id IS NULL)",
        name="of_a_company_or_an_ats",
    ),
    CheckConstraint("jsonb_typeof(data) = 'object' AND length(data::text) <= 4000", name="thin_data"),
    _index("uq_events_place", "place", where="place IS NOT NULL", unique=True),
    _index("ix_events_unnumbered", "entry", where="place IS NULL"),
    Index(None, "company_id", "place"),
    _index(None, "ats_principal_id", "place", where="ats_principal_id IS NOT NULL"),
)

interview_sequences = _table(
    "interview_sequences",
    # The sequence of the last event of each interview. Kept after the event, so that no sequence is given twice.
    Column("interview_id", Uuid, primary_key=True),
    Column("last", Integer, nullable=False),
)

webhook_endpoints = _table(
    "webhook_endpoints",
    Column("id", Uuid, primary_key=True),
    Column("principal_id", Uuid, nullable=False),
    Column("api_key_id", Uuid, nullable=False),
    # NULL: all companies that the ATS key of the principal has created.
    Column("company_id", Uuid, ForeignKey("companies.id")),
    Column("url", Text, nullable=False),
    Column("name", Text),
    Column("description", Text),
    # Encrypted, as the secrets: the value of a header may be a password. Their names are in the clear, for answers.
    Column("headers", LargeBinary),
    Column("header_names", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("events", ARRAY(Text), nullable=False),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("max_retries", Integer, nullable=False),
    Column("timeout_ms", Integer, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("old_secret", LargeBinary),
    Column("old_secret_until", _INSTANT),
    Column("consecutive_failures", Integer, nullable=False, server_default=text("0")),
    Column("failing_since", _INSTANT),
    Column("circuit_opened_at", _INSTANT),
    Column("probe_at", _INSTANT),
    Column("disabled_at", _INSTANT),
    Column("disabled_cause", Text),
    # The next try to mail its owner that it was disabled. NULL when that was sent or given up.
    Column("notice_at", _INSTANT),
    Column("notice_tries", SmallInteger, nullable=False, server_default=text("0")),
    # Endpoints take turns in this order.
    Column("claimed_at", _INSTANT),
    # Its last answer was late. Slow endpoints share a part of the threads.
    Column("is_slow", Boolean, nullable=False, server_default=text("false")),
    *_timestamps(),
    CheckConstraint("(disabled_at IS NULL) = (disabled_cause IS NULL)", name="disabled_for_a_cause"),
    CheckConstraint("(old_secret IS NULL) = (old_secret_until IS NULL)", name="an_old_secret_ends"),
    Index(None, "principal_id"),
    Index(None, "company_id"),
    _index("ix_webhook_endpoints_notices", "notice_at", where="notice_at IS NOT NULL"),
)

webhook_deliveries = _table(
    "webhook_deliveries",
    # One row for each event and endpoint. A replay uses the same row: the receiver sees the same id again.
    Column("event_id", Uuid, ForeignKey("events.id", ondelete="CASCADE"), primary_key=True),
    Column("endpoint_id", Uuid, ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), primary_key=True),
    # Those of the event, so that a claim reads no event.
    Column("place", BigInteger, nullable=False),
    Column("interview_id", Uuid),
    Column("sequence", Integer),
    Column("state", Text, nullable=False),
    Column("is_replay", Boolean, nullable=False, server_default=text("false")),
    Column("tries", SmallInteger, nullable=False, server_default=text("0")),
    Column("send_at", _INSTANT, nullable=False),
    Column("claim", Uuid),
    Column("lease_until", _INSTANT),
    Column("first_failed_at", _INSTANT),
    # The last try. Nothing of the answer but its status is stored.
    Column("last_tried_at", _INSTANT),
    Column("last_status", SmallInteger),
    Column("last_error_kind", Text),
    Column("last_ms", Integer),
    # The newest tries, oldest first.
    Column("history", JSONB, nullable=False, server_default=text("'[]'")),
    # Outside the range that looks read, behind an earlier delivery.
    Column("held_until", _INSTANT),
    Column("finished_at", _INSTANT),
    Column("created_at", _INSTANT, nullable=False),
    CheckConstraint("state IN ('WAITING', 'DELIVERED', 'FAILED')", name="state"),
    CheckConstraint("(state = 'WAITING') = (finished_at IS NULL)", name="finished_if_not_waiting"),
    CheckConstraint("(claim IS NULL) = (lease_until IS NULL)", name="a_claim_has_a_lease"),
    Index(None, "endpoint_id", "place"),
    _index("ix_webhook_deliveries_waiting", "endpoint_id", "is_replay", "send_at", "place", where="state = 'WAITING'"),
    _index("ix_webhook_deliveries_in_flight", "endpoint_id", where="claim IS NOT NULL"),
    # For the history: those that failed may be few among a million.
    _index("ix_webhook_deliveries_undelivered", "endpoint_id", "place", where="state <> 'DELIVERED'"),
    # For the order: an earlier delivery that has not failed, and those that failed just now.
    _index(
        "ix_webhook_deliveries_blocking",
        "endpoint_id",
        "interview_id",
        "first_failed_at",
        "sequence",
        where="state = 'WAITING' AND NOT is_replay",
    ),
    # For each look. It has no delivery that waits behind another.
    _index(
        "ix_webhook_deliveries_sendable",
        "endpoint_id",
        "is_replay",
        text("greatest(send_at, held_until)"),
        "place",
        where="finished_at IS NULL AND held_until IS NULL",
    ),
    _index(
        "ix_webhook_deliveries_held",
        "endpoint_id",
        "interview_id",
        "sequence",
        where="state = 'WAITING' AND held_until IS NOT NULL",
    ),
    # Only for ranges of time: see `webhook_holds`.
    _index(
        "ix_webhook_deliveries_held_until",
        "endpoint_id",
        "held_until",
        where="finished_at IS NULL AND held_until > '-infinity'",
    ),
)
