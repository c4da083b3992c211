"""Request and response schemas for companies, their settings, and invitations of their owners."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import AfterValidator, Field, StrictBool, StringConstraints, WithJsonSchema

from api_shim.schemas.envelope import Page, answer, page
from scheduler.domain.call import DetectionTuning, MachineDetection
from scheduler.domain.company import DEFAULT_DELAYS, CallLimits, Company, CompanySettings, NewCompany, Owner, Weekday
from scheduler.domain.resource import Changes
from scheduler.rules.machine_detection import tuning_as_json, tuning_from_json
from scheduler.rules.owners import TEXTS
from scheduler.rules.resources import MAX_DELAYS, MAX_RETRIES, read_retry_policy, retry_policy_as_json
from scheduler.timing.time_texts import intervals_as_json, read_intervals
from scheduler.wire.field_types import (
    CountryCode,
    MailAddress,
    Metadata,
    Name,
    Strict,
    Wire,
    ZoneName,
    left_out,
    named,
    new_of,
    printable,
    without_nulls,
)
from scheduler.wire.named_fields import within

_OWNER = (
    "E-mail address of the owner, in any case. A known user becomes the owner immediately. Anyone else receives an"
    " invitation by e-mail and becomes the owner on accepting it. The response is the same for both."
)
_TIME_OF_DAY = {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$", "examples": ["09:00"]}
_INTERVALS: dict[str, Any] = {
    "type": "array",
    "description": "When people may be called, on their own clock. `end` is exclusive. An `end` before `start` is on"
    " the next day. Intervals must not overlap. An empty list is rejected.",
    "minItems": 1,
    "maxItems": 50,
    "items": {
        "type": "object",
        "required": ["days", "start", "end"],
        "additionalProperties": False,
        "properties": {
            "days": {
                "type": "array",
                "minItems": 1,
                "uniqueItems": True,
                "items": {"type": "string", "enum": [day.name for day in Weekday]},
            },
            "start": _TIME_OF_DAY,
            "end": _TIME_OF_DAY,
        },
    },
    "examples": [[{"days": ["MON", "TUE"], "start": "09:00", "end": "12:30"}]],
}
_DELAYS: dict[str, Any] = {
    "type": "array",
    "maxItems": MAX_DELAYS,
    "items": {
        "anyOf": [{"type": "integer", "minimum": 1, "maximum": 2_592_000}, {"type": "string", "enum": ["NEXT_DAY"]}]
    },
}
_RETRIES: dict[str, Any] = {
    "type": "object",
    "description": "Automatic retries of calls that reached no person. Delays in seconds by reason. The last delay"
    " repeats. NEXT_DAY is the next day, in the part of it that was tried least. Omitted values use the default.",
    "additionalProperties": False,
    "properties": {
        "maxRetries": {"type": "integer", "minimum": 0, "maximum": MAX_RETRIES},
        "delays": {
            "type": "object",
            "additionalProperties": False,
            "properties": dict.fromkeys(DEFAULT_DELAYS, _DELAYS),
        },
    },
    "examples": [{"maxRetries": 3, "delays": {"BUSY": [900], "NO_ANSWER": [7200, "NEXT_DAY"]}}],
}

Intervals = Annotated[Any, WithJsonSchema(_INTERVALS)]
Retries = Annotated[Any, WithJsonSchema(_RETRIES)]
Locale = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$", max_length=35)]
CompanyName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=2, max_length=100)]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Description = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
Website = Annotated[str, StringConstraints(max_length=2048, pattern=r"^https?://[^\s]+$")]


class CompanySize(StrEnum):
    UP_TO_10 = "1-10"
    UP_TO_50 = "11-50"
    UP_TO_200 = "51-200"
    UP_TO_500 = "201-500"
    UP_TO_1000 = "501-1000"
    MORE_THAN_1000 = "1001+"


class CompanyLocation(Strict):
    city: Words | None = None
    country_code: CountryCode | None = None


class Limits(Strict):
    """Carrier capacity that the company may use. Omitted values use the default."""

    concurrent_calls: Annotated[int, Field(ge=1, le=10_000, strict=True)] = CallLimits().concurrent_calls
    calls_per_second: Annotated[float, Field(ge=0.001, le=1000, allow_inf_nan=False)] = CallLimits().calls_per_second


class Tuning(Strict):
    """Times of machine detection, in the carrier's ranges. Omitted and null values use the carrier's default."""

    timeout: Annotated[int, Field(ge=3, le=59, strict=True)] | None = Field(
        None, description="Seconds without a result after which it is unknown who answered. The carrier's default: 30."
    )
    speech_threshold: Annotated[int, Field(ge=1000, le=6000, strict=True)] | None = Field(
        None, description="Milliseconds. Longer speech is that of a machine. The carrier's default: 2400."
    )
    speech_end_threshold: Annotated[int, Field(ge=500, le=5000, strict=True)] | None = Field(
        None, description="Milliseconds of silence that end speech. The carrier's default: 1200."
    )
    silence_timeout: Annotated[int, Field(ge=2000, le=10_000, strict=True)] | None = Field(
        None,
        description="Milliseconds of initial silence after which it is unknown who answered. The carrier's default:"
        " 5000.",
    )

    def to_tuning(self) -> DetectionTuning:
        return tuning_from_json(self.model_dump(by_alias=True))


class SettingsChange(Strict):
    """Settings to change. Each is replaced as a whole. Omitted settings keep their value. Null restores the default."""

    timezone: ZoneName | None = Field(None, examples=["Europe/Bratislava"], description="IANA name.")
    locale: Locale | None = Field(
        None,
        examples=["de-AT"],
        description="Language of e-mails to the owner, by its first part:"
        f" {', '.join(f'`{language}`' for language in sorted(TEXTS))}. Default: `en`.",
    )
    call_time_intervals: Intervals = None
    retry_policy: Retries = None
    limits: Limits | None = None
    machine_detection: StrictBool | MachineDetection | None = Field(
        None,
        description="Whether the carrier detects answering machines: `ASYNC` while the conversation goes on, `SYNC`"
        " before it, so that the person waits in silence, or `OFF`. `true` is `SYNC`, `false` is `OFF`. Default of new"
        " companies: `ASYNC`.",
        examples=["ASYNC"],
    )
    machine_detection_tuning: Tuning | None = None
    offset_must_match_number: StrictBool | None = Field(
        None, description="Reject a UTC offset that no time zone of the number has, instead of adding a warning."
    )
    allowed_countries: Annotated[list[CountryCode], Field(max_length=300)] | None = Field(
        None, description="Numbers of other countries are not called. Null allows all countries."
    )

    def to_settings(self) -> Changes:
        """Collect the changes by field of CompanySettings. Raises NeverOpen, InvalidInterval, InvalidRetryPolicy."""
        with within("settings"):
            return self._read()

    def _read(self) -> Changes:
        default = CompanySettings()
        changes = dict(named(self, "timezone", "locale"))
        if "offset_must_match_number" in self.model_fields_set:
            must_match = self.offset_must_match_number
            changes["offset_must_match_number"] = default.offset_must_match_number if must_match is None else must_match
        if "machine_detection" in self.model_fields_set:
            changes["machine_detection"] = _mode(self.machine_detection, default.machine_detection)
        if "machine_detection_tuning" in self.model_fields_set:
            tuning = self.machine_detection_tuning
            changes["detection_tuning"] = DetectionTuning() if tuning is None else tuning.to_tuning()
        if "call_time_intervals" in self.model_fields_set:
            sent = self.call_time_intervals
            changes["intervals"] = default.intervals if sent is None else read_intervals(sent)
        if "retry_policy" in self.model_fields_set:
            changes["retry_policy"] = read_retry_policy({} if self.retry_policy is None else self.retry_policy)
        if "limits" in self.model_fields_set:
            limits = self.limits or Limits()
            changes["limits"] = CallLimits(
                concurrent_calls=limits.concurrent_calls, calls_per_second=limits.calls_per_second
            )
        if "allowed_countries" in self.model_fields_set:
            countries = self.allowed_countries
            changes["allowed_countries"] = None if countries is None else frozenset(countries)
        return changes


def _mode(sent: bool | MachineDetection | None, default: MachineDetection) -> MachineDetection:
    """Read the mode. Until version 0.3.0 it was a boolean, which keeps its meaning."""
    if sent is None:
        return default
    if isinstance(sent, bool):
        return MachineDetection.SYNC if sent else MachineDetection.OFF
    return sent


class _Profile(Strict):
    """Fields that are stored and returned but not used by Duecall. Null clears a field."""

    description: Description | None = None
    website: Website | None = None
    industry: Words | None = None
    size: CompanySize | None = Field(None, examples=["51-200"])
    location: CompanyLocation | None = None

    @property
    def profile(self) -> dict[str, Any]:
        """The fields that were sent, in their wire form."""
        sent = _Profile.model_fields.keys() & self.model_fields_set
        return self.model_dump(mode="json", by_alias=True, include=sent, exclude_unset=True)


class CompanyRequest(_Profile):
    """A company. The ATS key that creates it has access to it from then on."""

    name: CompanyName = Field(examples=["Acme"])
    settings: SettingsChange | None = None
    metadata: Metadata = Field(default_factory=dict)
    owner_email: MailAddress | None = Field(None, examples=["owner@example.com"], description=_OWNER, repr=False)

    def to_new_company(self) -> NewCompany:
        """Raises NeverOpen, InvalidInterval, InvalidRetryPolicy."""
        settings = CompanySettings() if self.settings is None else CompanySettings(**self.settings.to_settings())
        return new_of(NewCompany, self, profile=without_nulls(self.profile), settings=settings)


class CompanyChange(_Profile):
    """Fields to change. Omitted fields keep their value."""

    name: CompanyName = Field(default_factory=left_out)
    settings: SettingsChange | None = Field(
        None, description="Pending calls are rescheduled if calling hours, time zone or allowed countries change."
    )
    metadata: Metadata | None = Field(None, description="Merged into the existing metadata. Null removes a key.")
    owner_email: MailAddress | None = Field(
        None,
        description=_OWNER + " The previous owner becomes an admin. Null leaves the company without an owner.",
        repr=False,
    )

    def to_changes(self) -> Changes:
        """Raises NeverOpen, InvalidInterval, InvalidRetryPolicy."""
        settings = {} if self.settings is None else self.settings.to_settings()
        return {**named(self, "name", "metadata", "owner_email"), "profile": self.profile, "settings": settings}


class SettingsView(Wire):
    timezone: str | None
    locale: str | None
    call_time_intervals: Intervals
    retry_policy: Retries
    limits: Limits
    machine_detection: MachineDetection
    machine_detection_tuning: Tuning
    offset_must_match_number: bool
    allowed_countries: list[str] | None = Field(description="Null means all countries.")

    @classmethod
    def of(cls, settings: CompanySettings) -> Self:
        countries = settings.allowed_countries
        return cls.view_of(
            settings,
            call_time_intervals=intervals_as_json(settings.intervals),
            retry_policy=retry_policy_as_json(settings.retry_policy),
            machine_detection_tuning=tuning_as_json(settings.detection_tuning),
            limits=Limits.view_of(
                settings.limits,
                concurrent_calls=settings.limits.concurrent_calls,
                calls_per_second=settings.limits.calls_per_second,
            ),
            allowed_countries=None if countries is None else sorted(countries),
        )


class CompanyView(Wire):
    id: UUID
    name: str | None = Field(description="Null in a response that is repeated after the company was deleted.")
    description: str | None
    website: str | None
    industry: str | None
    size: CompanySize | None
    location: CompanyLocation | None
    settings: SettingsView
    metadata: dict[str, Any]
    owner_email: str | None = Field(
        description="E-mail address of the owner or of the invited owner, in lower case with an ASCII domain."
    )
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, company: Company) -> Self:
        profile = _Profile.model_validate(dict(company.profile))
        return cls.view_of(company, settings=SettingsView.of(company.settings), **dict(profile))


CompanyAnswer = answer("CompanyAnswer", CompanyView, "A company.")
CompanyPage = page("CompanyPage", Page, CompanyView, "Companies, newest first.")
CompaniesAnswer = answer("CompaniesAnswer", CompanyPage, "A page of companies.")


COMPANIES: dict[str, Example] = {
    "a company": {
        "summary": "A company with calling hours and a time zone",
        "value": {
            "name": "Acme",
            "settings": {
                "timezone": "Europe/Bratislava",
                "callTimeIntervals": [{"days": ["MON", "TUE", "WED", "THU", "FRI"], "start": "09:00", "end": "18:00"}],
            },
        },
    }
}
COMPANY_CHANGES: dict[str, Example] = {
    "another owner": {
        "summary": "Another owner. An unknown user receives an invitation by e-mail",
        "value": {"ownerEmail": "owner@example.com"},
    },
    "other hours": {
        "summary": "Other calling hours. Pending calls outside them are rescheduled",
        "value": {"settings": {"callTimeIntervals": [{"days": ["MON", "TUE"], "start": "10:00", "end": "16:00"}]}},
    },
}


# --- Request and response schemas for accepting an invitation


_TOKEN = "GmVPfYh4ZQb0Wc9rT2uS7kXJ1aD5nE8oL3iR6vK0yMw"  # noqa: S105 - an example


class Acceptance(Strict):
    """The token from the invitation e-mail and the name of the new owner."""

    token: str = Field(description="The part of the link after `#token=`.", examples=[_TOKEN], repr=False)
    name: Annotated[Name, AfterValidator(printable)] = Field(examples=["Jana Nováková"], repr=False)


class OwnerView(Wire):
    user_id: UUID
    name: str = Field(description="Name of the owner. An existing user keeps the name already on record.")
    email: str
    company_id: UUID
    company_name: str | None
    role: Literal["OWNER"] = "OWNER"

    @classmethod
    def of(cls, owner: Owner) -> Self:
        return cls.view_of(owner, user_id=owner.user.id, name=owner.user.name, email=owner.user.email)


OwnerAnswer = answer("OwnerAnswer", OwnerView, "The new owner and the company.")


ACCEPTANCES: dict[str, Example] = {
    "accept": {"summary": "Accept with the token from the link", "value": {"token": _TOKEN, "name": "Jana Nováková"}},
}
