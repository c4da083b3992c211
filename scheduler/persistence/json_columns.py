"""JSON forms of our frozen values, as stored in JSON columns."""

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, TypeAlias

from pydantic import TypeAdapter
from sqlalchemy import Row

from scheduler.domain.batch import Batch
from scheduler.domain.call import CalleeClock, MachineDetection, NumberFacts, Schedule, TimezoneSource
from scheduler.domain.command import KIND_OF, Answer, CommandKind, CreateInterview, Request
from scheduler.domain.company import CallLimits, Company, CompanySettings, RetryPolicy
from scheduler.domain.delivery_history import Replay
from scheduler.domain.interview import (
    SHOWN_ATTEMPTS,
    Agent,
    Candidate,
    Interview,
    InterviewStory,
    Job,
    NewCandidate,
    NewJob,
)
from scheduler.domain.resource import Resource
from scheduler.domain.webhook import EndpointTest, WebhookEndpoint
from scheduler.rules.machine_detection import tuning_as_json, tuning_from_json
from scheduler.rules.resources import read_retry_policy, retry_policy_as_json
from scheduler.timing.time_texts import intervals_as_json, read_intervals

ANSWER = TypeAdapter(Answer)
STORY = TypeAdapter(InterviewStory)

_REQUESTS: Mapping[CommandKind, TypeAdapter[Any]] = {kind: TypeAdapter(form) for form, kind in KIND_OF.items()}


def private_fields(kind: type[Resource | Interview]) -> frozenset[str]:
    """Name the fields that `repr` leaves out, because they may identify a person. Stored answers omit them."""
    return frozenset(each.name for each in fields(kind) if not each.repr)


_ALSO_OMITTED: Mapping[type[Resource], frozenset[str]] = {
    Company: frozenset({"name", "profile", "settings"}),
    Candidate: frozenset({"timezone"}),
    Agent: frozenset({"name"}),
    WebhookEndpoint: frozenset({"url", "name", "description", "header_names"}),
}
"""Fields that logs may contain, and stored answers omit."""

_RECORDS: Mapping[type[Resource], tuple[TypeAdapter[Any], frozenset[str]]] = {
    kind: (TypeAdapter(kind), private_fields(kind) | _ALSO_OMITTED.get(kind, frozenset()))
    for kind in (Company, Job, Candidate, Agent, WebhookEndpoint, EndpointTest, Replay, Batch)
}
"""The fields of a record that a stored answer omits, with the form of the record."""

_NOTHING: Mapping[str, Any] = {
    "settings": CompanySettings(),
    "profile": {},
    "details": {},
    "metadata": {},
    "header_names": (),
}


Content: TypeAlias = NewCandidate | NewJob | CreateInterview
"""A request that creates a resource which may have an external id."""

_CONTENTS: Mapping[type[Content], TypeAdapter[Any]] = {
    NewCandidate: TypeAdapter(NewCandidate),
    NewJob: TypeAdapter(NewJob),
    CreateInterview: TypeAdapter(CreateInterview),
}
_NO_CONTENT = {"external_id", "time_name"}


def omitted_fields(kind: type[Resource]) -> frozenset[str]:
    """Name the fields that a stored answer omits."""
    return _RECORDS[kind][1]


def content_as_json(new: Content) -> dict[str, Any]:
    """Collect a request's content about its resource, without the external id.

    Without default values, so that an omitted field is the same as its default, and a request that an earlier release
    accepted is the same as one in which a field that was added since is omitted.
    """
    form: dict[str, Any] = _CONTENTS[type(new)].dump_python(
        new, mode="json", exclude_defaults=True, exclude=_NO_CONTENT
    )
    return form


def record_as_json(record: Resource) -> dict[str, Any]:
    """Convert a record to its stored form in an answer: without name, title, number, address or metadata."""
    adapter, left_out = _RECORDS[type(record)]
    form: dict[str, Any] = adapter.dump_python(record, mode="json", exclude=set(left_out))
    return form


def record_from_json(kind: type[Resource], form: Mapping[str, Any], present: Resource | None) -> Resource:
    """Rebuild the record of an answer. Fields that were left out have their present value, or none if it is deleted."""
    adapter, left_out = _RECORDS[kind]
    filled = {name: getattr(present, name, _NOTHING.get(name)) for name in left_out}
    record: Resource = adapter.validate_python({**form, **filled})
    return record


def request_as_json(kind: CommandKind, request: Request) -> dict[str, Any]:
    form: dict[str, Any] = _REQUESTS[kind].dump_python(request, mode="json")
    return form


def request_from_json(kind: CommandKind, form: dict[str, Any] | None) -> Request:
    request: Request = _REQUESTS[kind].validate_python(form)
    return request


def schedule_as_json(schedule: Schedule) -> dict[str, Any]:
    clock = schedule.clock
    # Left out if it is the same as `due_at`, because each attempt stores this form.
    earlier = {} if schedule.earliest_at == schedule.due_at else {"earliest_at": schedule.earliest_at.isoformat()}
    return {
        "requested": schedule.requested,
        "source": clock.source.value,
        "offset_s": None if clock.offset is None else clock.offset.total_seconds(),
        "zones": list(clock.zones),
        "due_at": schedule.due_at.isoformat(),
        "tzdata_version": schedule.tzdata_version,
        **earlier,
        **_number_as_json(schedule.number),
    }


def _number_as_json(number: NumberFacts | None) -> dict[str, Any]:
    """Build the keys of the facts, without those that few numbers need. None: no key."""
    if number is None:
        return {}
    never_called = {} if number.never_called is None else {"never_called": number.never_called}
    zones = {} if number.zones is None else {"number_zones": list(number.zones)}
    return {"country": number.country, **never_called, **zones}


def schedule_from_json(form: dict[str, Any]) -> Schedule:
    offset = form["offset_s"]
    return Schedule(
        requested=form["requested"],
        clock=CalleeClock(
            source=TimezoneSource(form["source"]),
            offset=None if offset is None else timedelta(seconds=offset),
            zones=tuple(form["zones"]),
        ),
        due_at=datetime.fromisoformat(form["due_at"]),
        earliest_at=datetime.fromisoformat(form.get("earliest_at", form["due_at"])),
        tzdata_version=form["tzdata_version"],
        number=_number_from_json(form) if "country" in form else None,
    )


def _number_from_json(form: dict[str, Any]) -> NumberFacts:
    zones = form.get("number_zones")
    return NumberFacts(
        country=form["country"],
        never_called=form.get("never_called"),
        zones=None if zones is None else tuple(zones),
    )


def settings_as_json(settings: CompanySettings) -> dict[str, Any]:
    """Convert a company's settings to their wire form, without the limits, which have their own columns."""
    return {
        "timezone": settings.timezone,
        "locale": settings.locale,
        "callTimeIntervals": intervals_as_json(settings.intervals),
        "retryPolicy": retry_policy_as_json(settings.retry_policy),
        **_detection_as_json(settings),
        "offsetMustMatchNumber": settings.offset_must_match_number,
        "allowedCountries": None if settings.allowed_countries is None else sorted(settings.allowed_countries),
    }


def _detection_as_json(settings: CompanySettings) -> dict[str, Any]:
    """Build the keys of machine detection. Workers of version 0.2.0 read only the first, as a boolean."""
    mode = settings.machine_detection
    return {
        "machineDetection": mode is not MachineDetection.OFF,
        "machineDetectionMode": mode.value,
        "machineDetectionTuning": tuning_as_json(settings.detection_tuning),
    }


def _detection_from_json(form: dict[str, Any]) -> MachineDetection:
    if not form["machineDetection"]:
        return MachineDetection.OFF
    return MachineDetection(form.get("machineDetectionMode", MachineDetection.SYNC))


def story_from_json(snapshot: Mapping[str, Any]) -> InterviewStory:
    """Read the interview of a stored answer. An earlier version stored all its attempts."""
    stored = snapshot["attempts"]
    total = snapshot.get("attempts_total", len(stored))
    return STORY.validate_python({**snapshot, "attempts": stored[-SHOWN_ATTEMPTS:], "attempts_total": total})


def settings_of(row: Row[Any]) -> CompanySettings:
    """Read the settings in the columns `settings`, `concurrent_calls` and `calls_per_second` of a company.

    The result is cached by the contents of these columns, so it is never out of date. The parser takes eight times as
    long as the cache's key. Statements for many attempts select `settings` as text, which is the key itself.
    """
    stored = row.settings if isinstance(row.settings, str) else json.dumps(row.settings)
    return _settings(stored, int(row.concurrent_calls), float(row.calls_per_second))


@lru_cache(maxsize=1024)
def _settings(stored: str, concurrent_calls: int, calls_per_second: float) -> CompanySettings:
    form = json.loads(stored)
    allowed = form["allowedCountries"]
    return CompanySettings(
        timezone=form["timezone"],
        locale=form["locale"],
        intervals=read_intervals(form["callTimeIntervals"]),
        retry_policy=read_retry_policy(form["retryPolicy"]) if "retryPolicy" in form else RetryPolicy(),
        limits=CallLimits(concurrent_calls=concurrent_calls, calls_per_second=calls_per_second),
        machine_detection=_detection_from_json(form),
        detection_tuning=tuning_from_json(form.get("machineDetectionTuning", {})),
        offset_must_match_number=form["offsetMustMatchNumber"],
        allowed_countries=None if allowed is None else frozenset(allowed),
    )
