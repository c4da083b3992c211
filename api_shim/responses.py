"""HTTP responses for commands and writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Literal, Self, TypeVar
from uuid import UUID

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from api_shim import errors
from api_shim.assembly import app_context
from api_shim.schemas.agent import AgentView
from api_shim.schemas.batch import BatchView
from api_shim.schemas.candidate import CandidateView
from api_shim.schemas.company import CompanyView
from api_shim.schemas.conversation import OutcomeView
from api_shim.schemas.envelope import Answer, CommandView, ErrorView, WaitingView, WrittenView
from api_shim.schemas.interview import AttemptView, InterviewView
from api_shim.schemas.job import JobView
from api_shim.schemas.requested_calls import InterviewRequest
from api_shim.schemas.webhook import NewSecretView, ReplayView, WebhookTestView, WebhookView
from scheduler.domain.attempt import Attempt
from scheduler.domain.batch import Batch, BatchState
from scheduler.domain.command import Command, CommandKind
from scheduler.domain.company import Company
from scheduler.domain.delivery_history import Replay
from scheduler.domain.interview import Agent, Candidate, Interview, InterviewStory, Job
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import AccessDenied, JobAmbiguous, NotFound
from scheduler.domain.resource import Resource
from scheduler.domain.webhook import EndpointTest, WebhookEndpoint
from scheduler.persistence.json_columns import private_fields, record_from_json, story_from_json
from scheduler.use_cases.resources.idempotent_writes import WriteResult


@dataclass(frozen=True, kw_only=True)
class ClientTexts:
    """Fields of an interview that a stored answer does not contain, because they may be personal data."""

    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    notes: Mapping[UUID, str | None] = field(default_factory=dict, repr=False)
    """Notes of reports, by attempts."""

    @classmethod
    def of(cls, source: InterviewRequest | Interview, attempts: Sequence[Attempt] = ()) -> Self:
        """Read them from a request, or from the interview and its attempts as they are now."""
        names = private_fields(Interview)
        return cls(
            values={name: getattr(source, name) for name in names if hasattr(source, name)},
            notes={each.id: each.outcome_note for each in attempts},
        )


MAKING = frozenset(
    {
        CommandKind.CREATE_COMPANY,
        CommandKind.CREATE_JOB,
        CommandKind.CREATE_CANDIDATE,
        CommandKind.CREATE_AGENT,
        CommandKind.CREATE_WEBHOOK,
    }
)

R = TypeVar("R", Replay, Batch)
_SHOWS_SECRET = frozenset({CommandKind.CREATE_WEBHOOK, CommandKind.ROTATE_WEBHOOK})
_REPLAYING = frozenset({CommandKind.REPLAY_DELIVERY, CommandKind.REPLAY_DELIVERIES})
"""They are answered before anything is sent."""
_RETURNS_INTERVIEW = frozenset({CommandKind.CREATE_INTERVIEW, CommandKind.UPDATE_INTERVIEW})


def answered(
    request: Request,
    data: BaseModel | bool,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Build a successful response in the envelope."""
    content = Answer(data=data, timestamp=app_context(request).use_cases.now(), trace_id=request.state.trace_id)
    return JSONResponse(
        content.model_dump(mode="json", by_alias=True, serialize_as_any=True),
        status,
        headers=None if headers is None else dict(headers),
    )


def still_waiting(request: Request, command: Command, headers: Mapping[str, str]) -> JSONResponse:
    """Answer 202: the command is stored. `Location` is the URL of its result."""
    return answered(
        request,
        WaitingView(id=command.id, status=command.state),
        HTTPStatus.ACCEPTED,
        {"Location": f"/commands/{command.id}", **headers},
    )


def applied(request: Request, command: Command, texts: ClientTexts, headers: Mapping[str, str]) -> Response:
    """Build the answer that was stored when the command was applied, with the texts of its interview."""
    assert command.answer is not None
    if command.answer.refusal is not None:
        return errors.refused(request, command.answer.refusal, headers)
    status, data = _done(request, command, texts)
    if data is None:
        tag = {} if command.answer.etag is None else {"ETag": command.answer.etag}
        return Response(status_code=status, headers={**tag, **headers})
    return answered(request, data, status, headers)


def written(request: Request, kind: CommandKind, done: WriteResult) -> Response:
    """Build the response for a write that the API did itself."""
    headers = {"Idempotent-Replayed": "true"} if done.replayed else {}
    if done.refusal is not None:
        return errors.refused(request, done.refusal, headers)
    if kind is CommandKind.DELETE_WEBHOOK:
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
    if done.record is None:
        status = HTTPStatus.ACCEPTED if kind in _REPLAYING else HTTPStatus.OK
        return answered(request, True, status, headers)
    if isinstance(done.record, Batch):
        status = _status_of_batch(kind, done.record)
        if kind is CommandKind.CREATE_BATCH:
            headers["Location"] = f"/batches/{done.record.id}"
    elif kind in _REPLAYING:
        status = HTTPStatus.ACCEPTED
    else:
        status = HTTPStatus.CREATED if kind in MAKING and not done.existed else HTTPStatus.OK
    return answered(request, _record_view(kind, done.record), status, headers)


def _status_of_batch(kind: CommandKind, batch: Batch) -> HTTPStatus:
    """Choose 202 while a worker still has to apply items of the batch or to cancel its calls."""
    is_cancelling = batch.state is BatchState.CANCELLED and batch.finished_at is None
    return HTTPStatus.ACCEPTED if kind is CommandKind.CREATE_BATCH or is_cancelling else HTTPStatus.OK


def _record_view(kind: CommandKind, record: Resource) -> BaseModel:
    match record:
        case Company():
            return CompanyView.of(record)
        case Job():
            return JobView.of(record)
        case Candidate():
            return CandidateView.of(record)
        case Agent():
            return AgentView.of(record)
        case WebhookEndpoint():
            return NewSecretView.of(record) if kind in _SHOWS_SECRET else WebhookView.of(record)
        case EndpointTest():
            return WebhookTestView.of(record, None)
        case Replay():
            return ReplayView.of(record)
        case Batch():
            return BatchView.of(record)


def command_view(request: Request, command: Command, texts: ClientTexts) -> CommandView:
    status, data = _outcome(request, command, texts)
    return CommandView.view_of(
        command,
        status=command.state,
        status_code=status,
        result=data.model_dump(mode="json", by_alias=True) if isinstance(data, BaseModel) else data,
    )


async def live_texts(request: Request, principal: Principal, command: Command) -> ClientTexts:
    """Read the current texts of the interview in the command's answer, or none if it contains no interview."""
    is_done = command.answer is not None and command.answer.refusal is None
    if not is_done or command.kind not in _RETURNS_INTERVIEW or command.interview_id is None:
        return ClientTexts()
    context = app_context(request)
    try:
        story = await context.ask(
            context.use_cases.explain.interview, principal, command.company_id, command.interview_id
        )
    except (NotFound, AccessDenied):
        return ClientTexts()
    return ClientTexts.of(story.interview, story.attempts)


async def with_titles(request: Request, principal: Principal, command: Command) -> Command:
    """Add current job titles to a refusal that lists jobs. Stored answers contain only the ids."""
    refusal = None if command.answer is None else command.answer.refusal
    if refusal is None or refusal.code != JobAmbiguous.code:
        return command
    assert command.answer is not None
    context = app_context(request)
    job_ids = [UUID(job["id"]) for job in refusal.details["jobs"]]
    try:
        titles = await context.ask(context.use_cases.jobs.titles, principal, command.company_id, job_ids)
    except AccessDenied:
        titles = {}
    jobs = [{"id": str(job_id), "title": titles.get(job_id)} for job_id in job_ids]
    titled = replace(refusal, details={**refusal.details, "jobs": jobs})
    return replace(command, answer=replace(command.answer, refusal=titled))


def _outcome(
    request: Request, command: Command, texts: ClientTexts
) -> tuple[HTTPStatus | None, BaseModel | bool | None]:
    if command.answer is None:
        return None, None
    refusal = command.answer.refusal
    if refusal is None:
        return _done(request, command, texts)
    return errors.STATUS_OF[refusal.family], ErrorView.of(refusal)


def _done(request: Request, command: Command, texts: ClientTexts) -> tuple[HTTPStatus, BaseModel | bool | None]:
    """Build the status and `data` of a successful command. No data: the response has no body."""
    existed = command.answer is not None and command.answer.existed is True
    created = HTTPStatus.OK if existed else HTTPStatus.CREATED
    match command.kind:
        case CommandKind.CREATE_INTERVIEW:
            return created, _interview(request, command, texts)
        case CommandKind.UPDATE_INTERVIEW:
            return HTTPStatus.OK, _interview(request, command, texts)
        case CommandKind.DELETE_INTERVIEW:
            return HTTPStatus.OK, True
        case CommandKind.INVOKE_ATTEMPT:
            return HTTPStatus.CREATED, _attempt(request, command)
        case CommandKind.REPORT_OUTCOME:
            assert command.answer is not None
            return HTTPStatus.OK, OutcomeView.model_validate(command.answer.snapshot, by_name=True)
        case CommandKind.RESCHEDULE_ATTEMPT | CommandKind.DELETE_ATTEMPT | CommandKind.DELETE_WEBHOOK:
            return HTTPStatus.NO_CONTENT, None
        case CommandKind.REPLAY_DELIVERY:
            return HTTPStatus.ACCEPTED, True
        case CommandKind.REPLAY_DELIVERIES:
            return HTTPStatus.ACCEPTED, ReplayView.of(_record(Replay, command))
        case CommandKind.CREATE_BATCH | CommandKind.CANCEL_BATCH:
            return _status_of_batch(command.kind, _record(Batch, command)), _written(command)
        case _:  # written by the API itself, and the resource has its own URL
            status = created if command.kind in MAKING else HTTPStatus.OK
            return status, _written(command)


def _record(kind: type[R], command: Command) -> R:
    assert command.answer is not None
    assert command.answer.snapshot is not None
    record = record_from_json(kind, command.answer.snapshot, None)
    assert isinstance(record, kind)
    return record


def _written(command: Command) -> WrittenView | Literal[True]:
    assert command.answer is not None
    snapshot = command.answer.snapshot
    return True if snapshot is None else WrittenView(id=snapshot["id"], company_id=snapshot.get("company_id"))


def _interview(request: Request, command: Command, texts: ClientTexts) -> InterviewView:
    story = _story(command)
    attempts = tuple(replace(each, outcome_note=texts.notes.get(each.id)) for each in story.attempts)
    story = replace(story, interview=replace(story.interview, **texts.values), attempts=attempts)
    return InterviewView.of(story, app_context(request).use_cases.now())


def _attempt(request: Request, command: Command) -> AttemptView:
    """Show the attempt of the command, as it was when the command was applied."""
    assert command.answer is not None
    [attempt] = [each for each in _story(command).attempts if each.id == command.answer.attempt_id]
    return AttemptView.of(attempt, app_context(request).use_cases.now())


def _story(command: Command) -> InterviewStory:
    assert command.answer is not None
    assert command.answer.snapshot is not None
    return story_from_json(command.answer.snapshot)
