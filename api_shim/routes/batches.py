"""HTTP routes for batches."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Security
from fastapi.responses import JSONResponse, Response

from api_shim import request_input, responses
from api_shim.auth import WRITE_INTERVIEWS, InterviewReader
from api_shim.dispatch import WriteSender, write_sender
from api_shim.errors import too_many_items
from api_shim.list_queries import BatchList, PlaceQuery, place_of
from api_shim.openapi import IfSent, error_answers, links, too_large, written_answers
from api_shim.schemas.batch import (
    REQUEST_BODY,
    BatchAnswer,
    BatchesAnswer,
    BatchView,
    DryRunAnswer,
    DryRunView,
    ItemPageView,
    ItemsAnswer,
)
from api_shim.schemas.envelope import CursorPage, list_name
from api_shim.schemas.requested_calls import item_reader
from api_shim.thread_pools import run_in_thread, share
from scheduler.domain import refusals
from scheduler.domain.batch import ItemState
from scheduler.domain.command import CommandKind
from scheduler.domain.refusals import BatchFinished
from scheduler.wire import batches
from scheduler.wire.batches import LARGEST_BATCH, BatchForm, BatchHeader, BatchName, BatchTooLarge, Item
from scheduler.wire.json_values import MalformedJson
from scheduler.wire.named_fields import FieldError, invalid_fields, refuse_any

# --- Bodies of batches: read after authentication, and parsed in a thread, because ten thousand items take a second


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


async def _received(request: Request) -> BatchBody:
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


# --- HTTP routes for batches


_ALL = "/batches"
_ONE = _ALL + "/{batchId}"
_LIST = "batches"
_LOCATION = {"Location": {"description": "URL of the batch.", "schema": {"type": "string"}}}
router = APIRouter(tags=["batches"])

BatchId = Annotated[UUID, Path(alias="batchId")]
Writer = Annotated[WriteSender, Security(write_sender, scopes=[WRITE_INTERVIEWS])]


@router.get(
    _ALL,
    operation_id="listBatches",
    summary="List batches",
    description="Newest first, kept for 30 days after they are finished.",
    responses={200: {"model": BatchesAnswer}, **error_answers(400, 401, 403, 500, 503)},
)
async def list_batches(request: Request, reader: InterviewReader, query: BatchList) -> JSONResponse:
    listed = await reader.ask(reader.use_cases.batches.page, query.keyset(_LIST))
    now = reader.use_cases.now()
    return responses.answered(
        request, CursorPage.of(query.name_of(_LIST), listed, lambda batch: BatchView.of(batch, now))
    )


@router.post(
    _ALL,
    operation_id="createBatch",
    summary="Schedule many interviews",
    description="Each item is a body of `POST /interviews` and is applied as such a request, with the same errors. The"
    " response is sent as soon as all items are stored. An item that is refused, at once or later, does not refuse the"
    " others: `GET /batches/{batchId}/items` shows the error of each. Send `externalId` with each item, so that a batch"
    " that is sent again creates only what is missing. With `dryRun` nothing is stored. The response contains how"
    " many items would be refused and why, when the calls would become due, and when the last one would start. A key"
    " may send ten times as many items an hour as requests, and 2 KiB for each of them. Above that, the response is 429"
    " and nothing is stored.",
    status_code=HTTPStatus.ACCEPTED,
    responses={
        HTTPStatus.OK: {"model": DryRunAnswer, "description": "The result of a dry run."},
        **written_answers(
            HTTPStatus.ACCEPTED,
            BatchAnswer,
            "The stored batch.",
            BatchTooLarge,
            MalformedJson,
            WrongBatchType,
            headers=_LOCATION,
            response_links=links(
                "getBatch", "listBatchItems", "pauseBatch", "resumeBatch", "cancelBatch", batchId="id"
            ),
        ),
        **too_large(f"{LARGEST_BATCH // 2**20} MiB"),
    },
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def create_batch(
    request: Request,
    sender: Writer,
    name: Annotated[
        IfSent[BatchName], Query(description="For a batch in NDJSON: your name of the batch, which it shows.")
    ] = None,
    dry_run: Annotated[
        IfSent[bool], Query(alias="dryRun", description="For a batch in NDJSON: only check it, and store nothing.")
    ] = None,
) -> Response:
    with sender.context.uploads.one_of(share()):
        body = await _received(request)
        exceeded = await sender.context.rate_limits.count_batch(request.state.key, len(body.content))
        if exceeded is not None:
            raise too_many_items(exceeded, sender.use_cases.now())
        given = {"name": name, "dryRun": dry_run}
        asked = BatchHeader.model_validate({field: value for field, value in given.items() if value is not None})
        today = sender.use_cases.now().date()
        header, items = await run_in_thread(sender.context.threads.batches, body.parse, asked, today)
        exceeded = await sender.context.rate_limits.count_items(request.state.key, len(items))
        if exceeded is not None:
            raise too_many_items(exceeded, sender.use_cases.now())
        if header.dry_run:
            found = await sender.ask(sender.use_cases.dry_runs.decide, [each.outcome for each in items])
            return responses.answered(request, DryRunView.of(found, [each.index for each in items]))
        return await sender.write(
            CommandKind.CREATE_BATCH,
            sender.use_cases.batches.create,
            body.digest,
            sender.company_id,
            header.name,
            items,
        )


@router.get(
    _ONE,
    operation_id="getBatch",
    summary="Get a batch with its progress",
    description="`status` is COMPLETED when each item is applied or refused. The event `batch.completed` reports the"
    " same without repeated requests.",
    responses={200: {"model": BatchAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_batch(request: Request, reader: InterviewReader, batch_id: BatchId) -> JSONResponse:
    batch = await reader.ask(reader.use_cases.batches.get, batch_id)
    return responses.answered(request, BatchView.of(batch, reader.use_cases.now()))


@router.get(
    _ONE + "/items",
    operation_id="listBatchItems",
    summary="List the items of a batch with their errors and interviews",
    description="In the order of the batch. Items with `status=REFUSED` need a correction. The body of an item is not"
    " shown. It is deleted as soon as the item is applied, refused or cancelled.",
    responses={200: {"model": ItemsAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def list_batch_items(
    request: Request,
    reader: InterviewReader,
    batch_id: BatchId,
    status: Annotated[IfSent[ItemState], Query(description="Only items of this status.")] = None,
    state: Annotated[IfSent[ItemState], Query(description="Another name of `status`. Send one of them.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: PlaceQuery = None,
) -> JSONResponse:
    if status is not None and state is not None:
        message = "This is another name of `status`. Send one of them."
        raise invalid_fields([FieldError(field="state", code="CONFLICTING_FIELDS", message=message)])
    wanted = status or state
    name = list_name(f"items-{batch_id}", [] if wanted is None else [("status", wanted)])
    after = place_of(name, cursor)
    page = await reader.ask(reader.use_cases.batches.items, batch_id, wanted, -1 if after is None else after, limit)
    return responses.answered(request, ItemPageView.of(name, page))


@router.post(
    _ONE + "/pause",
    operation_id="pauseBatch",
    summary="Pause a batch",
    description="From the response on, the batch creates no further interviews. Calls of the interviews that it has"
    " created go on. To stop those too, cancel the batch. A batch that is paused for 30 days is cancelled.",
    responses=written_answers(HTTPStatus.OK, BatchAnswer, "The paused batch.", BatchFinished),
)
async def pause_batch(sender: Writer, batch_id: BatchId, raw: request_input.EmptyBody) -> Response:
    return await sender.write(CommandKind.PAUSE_BATCH, sender.use_cases.batches.pause, raw, sender.company_id, batch_id)


@router.post(
    _ONE + "/resume",
    operation_id="resumeBatch",
    summary="Resume a paused batch",
    description="Requested times are still judged as of the time at which the batch was received.",
    responses=written_answers(HTTPStatus.OK, BatchAnswer, "The resumed batch.", BatchFinished),
)
async def resume_batch(sender: Writer, batch_id: BatchId, raw: request_input.EmptyBody) -> Response:
    return await sender.write(
        CommandKind.RESUME_BATCH, sender.use_cases.batches.resume, raw, sender.company_id, batch_id
    )


@router.delete(
    _ONE,
    operation_id="cancelBatch",
    summary="Cancel a batch",
    description="Waiting items are cancelled, and interviews that the batch has created become CANCELLED with their"
    " pending calls. A call in progress goes on, and nothing follows it. Interviews that existed before are not"
    " changed. 200: no further call of the batch is begun. A call that was begun before may still be on its way to the"
    " carrier: `counts.inProgress` says how many run on. 202: a worker is cancelling the calls, and no further one is"
    " begun once the batch has `finishedAt`.",
    responses={
        **written_answers(HTTPStatus.OK, BatchAnswer, "The cancelled batch."),
        202: {"model": BatchAnswer, "description": "The batch, whose calls are being cancelled."},
    },
)
async def cancel_batch(sender: Writer, batch_id: BatchId, raw: request_input.EmptyBody) -> Response:
    return await sender.write(
        CommandKind.CANCEL_BATCH, sender.use_cases.batches.cancel, raw, sender.company_id, batch_id
    )
