"""Response schemas for a dry run of a batch."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from pydantic import Field

from api_shim.schemas.envelope import Answer
from scheduler.domain.dry_run import DryRun, DueHour, RefusedItems
from scheduler.domain.explanation import Rule
from scheduler.lifecycle.scheduling import offset_text
from scheduler.wire.camel_model import Wire


class RefusedItemsView(Wire):
    """Items that would be refused with the same error. Their messages differ at most in numbers, such as times."""

    code: str = Field(examples=["OUTSIDE_CALL_TIME_INTERVAL"])
    field: str | None = Field(description="The field of an item that is wrong, if it is one.")
    message: str = Field(description="The message of the first of these items, without its position and `details`.")
    count: int = Field(description="All of these items.")
    indexes: list[int] = Field(
        description="The first 100 of these items, from 0. In NDJSON, the number of the line less one."
    )

    @classmethod
    def of(cls, refused: RefusedItems, indexes: Sequence[int]) -> Self:
        return cls.view_of(refused, indexes=[indexes[place] for place in refused.first])


class DueHourView(Wire):
    """Calls that would become due within one hour, on the same clock."""

    begins_at: datetime = Field(description="The beginning of the hour.")
    timezone: str = Field(
        description="The zones whose calling hours decide, separated by commas, or the offset of the requested times."
    )
    calls: int

    @classmethod
    def of(cls, hour: DueHour) -> Self:
        timezone = ", ".join(hour.zones) if hour.offset is None else offset_text(hour.offset)
        return cls(begins_at=hour.begins, timezone=timezone, calls=hour.calls)


class DryRunView(Wire):
    """The answers that the items of a batch would get now. Nothing was stored."""

    total: int = Field(description="Items that were sent.")
    accepted: int = Field(description="Items that would create an interview.")
    existing: int = Field(
        description="Items whose `externalId` and content an interview has already. They would create nothing."
    )
    calls: int = Field(description="Accepted items that would place a call. ONLINE and test interviews place none.")
    refused: list[RefusedItemsView] = Field(description="Most frequent first.")
    repeated_numbers: int = Field(
        description="Calls to a number that an earlier item calls too. They are placed one after the other."
    )
    numbers_with_calls: int = Field(
        description="Calls to a number that the company is calling, or has a pending call to."
    )
    first_due_at: datetime | None = Field(description="When the first call would become due. Null without a call.")
    last_due_at: datetime | None = Field(description="When the last call would become due. Null without a call.")
    last_start_at: datetime | None = Field(
        description="When the last of these calls would start for the first time, at the present pace and limits of"
        " account and company. All pending calls of the account count, with their calling hours: also retries that are"
        " scheduled already. Retries that follow later, of these calls or of others, and later requests do not count."
        " Null without a call that can start, while `waitsFor` is not null, and before the first worker has started."
    )
    expired: int = Field(description="Calls that would expire before their turn.")
    waits_for: Rule | None = Field(description="A pause or an outage that prevents all calls now. Its end is unknown.")
    call_seconds: float | None = Field(
        description="The mean duration of the calls that ended last. `lastStartAt` assumes such durations. Null if too"
        " few have ended. Then `lastStartAt` follows only from the calls that may start each second, not from"
        " those at once."
    )
    due: list[DueHourView] = Field(description="Calls by hour and zone, in the order of time.")

    @classmethod
    def of(cls, run: DryRun, indexes: Sequence[int]) -> Self:
        """`indexes` has the index of each item. A blank line has an index, and no item."""
        return cls.view_of(
            run,
            refused=[RefusedItemsView.of(each, indexes) for each in run.refused],
            due=[DueHourView.of(each) for each in run.due],
            call_seconds=None if run.call_lasts is None else run.call_lasts.total_seconds(),
        )


class DryRunAnswer(Answer[DryRunView]):
    """The result of a dry run."""
