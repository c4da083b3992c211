"""Request and response schemas for accepting an invitation."""

from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import AfterValidator, Field

from api_shim.schemas.envelope import Answer
from scheduler.domain.owner import Owner
from scheduler.wire.camel_model import Wire
from scheduler.wire.field_types import Name, Strict, printable

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


class OwnerAnswer(Answer[OwnerView]):
    """The new owner and the company."""


ACCEPTANCES: dict[str, Example] = {
    "accept": {"summary": "Accept with the token from the link", "value": {"token": _TOKEN, "name": "Jana Nováková"}},
}
