"""Bodies of batches: read after authentication, and parsed in a thread, because ten thousand items take a second."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date

from starlette.requests import Request

from api_shim.schemas.create_interview import item_reader
from scheduler.domain import refusals
from scheduler.domain.refusals import RateLimitExceeded
from scheduler.wire import batches
from scheduler.wire.batches import BatchForm, BatchHeader, Item
from scheduler.wire.named_fields import FieldError, refuse_any

MOST_AT_A_TIME = 4
"""Batches that one process receives and stores at the same time for one company."""


class WrongBatchType(refusals.InvalidRequest):
    """The body must be JSON or NDJSON. Send the header Content-Type: application/json or application/x-ndjson."""

    code = "CONTENT_TYPE_NOT_BATCH"


@dataclass(frozen=True, kw_only=True)
class BatchBody:
    """The body of a batch that is not parsed yet."""

    form: BatchForm
    content: bytes = field(repr=False)

    @property
    def digest(self) -> bytes:
        """Distinguishes this body from others with the same Idempotency-Key."""
        return hashlib.sha256(self.form.value.encode() + b"\n" + self.content).digest()

    def parse(self, header: BatchHeader, today: date) -> tuple[BatchHeader, Sequence[Item]]:
        """Parse the fields of the batch, and its items. `header` is that of the query.

        Raises MalformedJson, InvalidFields, BatchTooLarge.
        """
        read_item = item_reader(today)
        if self.form is BatchForm.NDJSON:
            return header, batches.read_lines(self.content, read_item)
        refuse_any(_of_the_body(header))
        return batches.read_json(self.content, read_item)


class Uploads:
    """Bodies of batches in this process: few of one company at a time, because each takes up to 16 MiB of memory.

    A client may send a body as slowly as it likes.
    """

    def __init__(self, most: int = MOST_AT_A_TIME) -> None:
        self._most = most
        self._of_companies: Counter[Hashable] = Counter()

    @contextmanager
    def one_of(self, company: Hashable) -> Iterator[None]:
        """Count one body of the company during this block. Raises RateLimitExceeded."""
        if self._of_companies[company] >= self._most:
            message = f"This company is sending {self._most} batches. Send this one when one of them is answered."
            raise RateLimitExceeded(message, limit=self._most, unit="batches at a time", retryAfter=1)
        self._of_companies[company] += 1
        try:
            yield
        finally:
            self._of_companies[company] -= 1
            if not self._of_companies[company]:
                del self._of_companies[company]


async def read(request: Request) -> BatchBody:
    """Receive the body. Raises WrongBatchType, BodyTooLarge."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        form = BatchForm(media_type)
    except ValueError:
        raise WrongBatchType from None
    return BatchBody(form=form, content=await request.body())


def _of_the_body(header: BatchHeader) -> list[FieldError]:
    """List an error for each query parameter that belongs in the body of a batch in JSON."""
    message = "Only a batch in NDJSON has this query parameter. Send this field in the body."
    names = header.model_dump(by_alias=True, exclude_unset=True)
    return [FieldError(field=name, code="UNKNOWN_PARAMETER", message=message) for name in names]
