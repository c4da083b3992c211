"""Request and response schemas for agents and phone numbers."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import Field, StringConstraints

from api_shim.schemas.envelope import Page, answer, page
from scheduler.domain.interview import Agent, AgentFocus, AgentType, NewAgent
from scheduler.domain.resource import Changes
from scheduler.wire.field_types import Metadata, Strict, Wire, left_out, named, new_of, without_nulls

# --- Language levels of the Common European Framework of Reference


class CefrLevel(StrEnum):
    A1 = "A1"
    A2 = "A2"
    B1 = "B1"
    B2 = "B2"
    C1 = "C1"
    C2 = "C2"


# --- Request and response schemas for agents and phone numbers


AgentName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=2, max_length=100)]
Question = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
Minutes = Annotated[int, Field(ge=1, le=180, strict=True, description="Minutes.")]


class Language(StrEnum):
    EN = "EN"
    JA = "JA"
    ZH = "ZH"
    DE = "DE"
    HI = "HI"
    FR = "FR"
    KO = "KO"
    PT = "PT"
    IT = "IT"
    ES = "ES"
    ID = "ID"
    NL = "NL"
    TR = "TR"
    FIL = "FIL"
    PL = "PL"
    SV = "SV"
    BG = "BG"
    RO = "RO"
    AR = "AR"
    CS = "CS"
    EL = "EL"
    FI = "FI"
    HR = "HR"
    MS = "MS"
    SK = "SK"
    DA = "DA"
    TA = "TA"
    UK = "UK"
    RU = "RU"
    HU = "HU"
    NO = "NO"
    VI = "VI"


class Voice(StrEnum):
    ALEX = "ALEX"
    PETER = "PETER"
    MIRIAM = "MIRIAM"
    SUE = "SUE"
    VIERA = "VIERA"
    CASANDRA = "CASANDRA"
    SILVIA = "SILVIA"
    MICHAEL = "MICHAEL"
    LUKE = "LUKE"
    EMMA = "EMMA"
    SARAH = "SARAH"
    EVA = "EVA"


class _AgentDetails(Strict):
    """Fields that are stored and returned but not used by Duecall. Null clears a field."""

    questions: Annotated[list[Question], Field(max_length=50)] | None = None
    instructions: Annotated[str, StringConstraints(max_length=2000)] | None = None
    voice_id: Voice | None = None
    cefr_level: CefrLevel | None = Field(None, description="For language tests.")

    @property
    def details(self) -> dict[str, Any]:
        """The fields that were sent, in their wire form."""
        sent = _AgentDetails.model_fields.keys() & self.model_fields_set
        return self.model_dump(mode="json", by_alias=True, include=sent, exclude_unset=True)


class AgentRequest(_AgentDetails):
    """An agent: voice, subject, duration and caller id of interviews."""

    name: AgentName = Field(examples=["Generic interviewer"])
    type: AgentType
    focus: AgentFocus = Field(description="GENERIC needs no job. With any other focus, an interview is about a job.")
    language: Language
    duration: Minutes
    company_phone_number_id: UUID | None = Field(
        None, description="A phone number of the company, used as caller id. Required for type PHONE."
    )
    metadata: Metadata = Field(default_factory=dict)

    def to_new_agent(self) -> NewAgent:
        return new_of(
            NewAgent,
            self,
            language=self.language.value,
            duration=timedelta(minutes=self.duration),
            phone_number_id=self.company_phone_number_id,
            details=without_nulls(self.details),
        )


class AgentChange(_AgentDetails):
    """Fields to change. Omitted fields keep their value. Existing interviews keep the previous settings."""

    name: AgentName = Field(default_factory=left_out)
    type: AgentType = Field(default_factory=left_out)
    focus: AgentFocus = Field(default_factory=left_out)
    language: Language = Field(default_factory=left_out)
    duration: Minutes = Field(default_factory=left_out)
    company_phone_number_id: UUID | None = None
    metadata: Metadata | None = Field(None, description="Merged into the existing metadata. Null removes a key.")

    def to_changes(self) -> Changes:
        changes = {**named(self, "name", "type", "focus", "language", "duration", "metadata")}
        if "language" in changes:
            changes["language"] = self.language.value
        if "duration" in changes:
            changes["duration"] = timedelta(minutes=self.duration)
        if "company_phone_number_id" in self.model_fields_set:
            changes["phone_number_id"] = self.company_phone_number_id
        return {**changes, "details": self.details}


class AgentView(Wire):
    id: UUID
    company_id: UUID
    name: str | None = Field(description="Null in a response that is repeated after the agent was deleted.")
    type: AgentType
    focus: AgentFocus
    language: str
    duration: int = Field(description="Minutes.")
    company_phone_number_id: UUID | None
    questions: list[str]
    instructions: str | None
    voice_id: Voice | None
    cefr_level: CefrLevel | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, agent: Agent) -> Self:
        details = _AgentDetails.model_validate(dict(agent.details))
        minutes = agent.duration // timedelta(minutes=1)
        given = {**dict(details), "questions": details.questions or []}
        return cls.view_of(agent, duration=minutes, company_phone_number_id=agent.phone_number_id, **given)


AgentAnswer = answer("AgentAnswer", AgentView, "An agent.")
AgentPage = page("AgentPage", Page, AgentView, "Agents, newest first.")
AgentsAnswer = answer("AgentsAnswer", AgentPage, "A page of agents.")


class PhoneNumberView(Wire):
    """A number that the company calls from, added by the operator of the installation."""

    id: UUID
    company_id: UUID
    number: str = Field(examples=["+421221020001"])
    number_type: str = Field(examples=["LOCAL"])
    provider: str = Field(examples=["TWILIO"])
    status: str = Field(examples=["AVAILABLE"])
    capabilities: str = Field(examples=["OUTBOUND"])
    custom: bool
    location: str | None
    created_at: datetime
    updated_at: datetime


PhoneNumberPage = page("PhoneNumberPage", Page, PhoneNumberView, "Phone numbers, newest first.")
PhoneNumbersAnswer = answer("PhoneNumbersAnswer", PhoneNumberPage, "A page of phone numbers.")


AGENTS: dict[str, Example] = {
    "over the web": {
        "summary": "An agent that talks over the web and makes no calls",
        "value": {"name": "Web interviewer", "type": "ONLINE", "focus": "GENERIC", "language": "EN", "duration": 30},
    },
    "on the phone": {
        "summary": "An agent that calls from a number of the company",
        "value": {
            "name": "Phone interviewer",
            "type": "PHONE",
            "focus": "GENERIC",
            "language": "SK",
            "duration": 15,
            "companyPhoneNumberId": "5f0f7f3b-2a10-4c52-8a9b-9a1d2f5e3c77",
        },
    },
}
AGENT_CHANGES: dict[str, Example] = {
    "longer": {"summary": "A longer duration for new interviews", "value": {"duration": 45}},
}
