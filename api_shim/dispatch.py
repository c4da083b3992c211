"""How a request becomes a command, and how what became of it is told: the same for every command route."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Concatenate, ParamSpec
from uuid import UUID, uuid4

from fastapi import Depends, Request, Security
from fastapi.responses import Response

from api_shim import auth, responses
from api_shim.auth import DELETE_INTERVIEWS, WRITE_INTERVIEWS, Asker, asker
from api_shim.context import DOUBT_S, MAX_S, AppContext, app_context, asked
from api_shim.errors import CommitUnknown, IdempotencyInProgress
from api_shim.request_headers import HowAsked, RequestOptions
from scheduler.deadline import deadline_in, set_deadline
from scheduler.domain import command as wishes
from scheduler.domain.command import Command, CommandKind, CommandState
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import NotFound
from scheduler.hashing import fingerprint
from scheduler.persistence.commits import Commit, Outcome
from scheduler.persistence.database import CommitInDoubt, DatabaseAway, may_wait_again
from scheduler.persistence.inbox import StillRunning
from scheduler.use_cases.resources.idempotent_writes import WriteRequest, WriteResult
from scheduler.use_cases.submit import Accepted
from scheduler.wire.field_errors import FieldError, invalid_fields
from scheduler.wire.json_values import canonical
from scheduler.wire.named_fields import of_write

P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True)
class CommandDispatcher:
    """Who sends a command, about which company, and how they want it done."""

    request: Request
    principal: Principal
    company_id: UUID | None
    asked: RequestOptions

    async def command(
        self,
        wish: wishes.Request,
        raw: dict[str, Any],
        *,
        metadata: dict[str, Any] | None = None,
        stale: Sequence[FieldError] = (),
    ) -> Response:
        """Have it accepted, wait for it, and tell what became of it.

        `raw` is the body as it was sent. `metadata` is what the answer's interview will have, where that is known
        without asking. `stale` says what is wrong today and may have been right when this request came first.
        """
        request_hash = self._hash_of(raw)
        if stale:
            return await self._answer(await self._earlier(request_hash, stale), metadata)
        command_id, commit = uuid4(), Commit()
        try:
            accepted = await self._submit(wish, request_hash, command_id, commit)
        except CommitInDoubt as doubt:
            return await self._answer_doubt(command_id, commit, doubt)
        return await self._answer(accepted, metadata)

    async def write(
        self,
        kind: CommandKind,
        verb: Callable[Concatenate[WriteRequest, P], WriteResult],
        raw: dict[str, Any],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Response:
        """Have the API do it now, and tell what became of it. `raw` is the body as it was sent."""
        here = app_context(self.request)
        sent = WriteRequest(
            kind=kind,
            principal=self.principal,
            idempotency_key=self.asked.idempotency_key,
            request_hash=self._hash_of(raw),
            fields=of_write(kind, raw),
            command_id=uuid4(),
        )
        while True:
            # A new one each time: a commit belongs to one transaction.
            commit = Commit()
            sent = replace(sent, commit=commit)
            try:
                written = await here.write(commit, partial(verb, sent, *args, **kwargs))
                break
            except StillRunning as earlier:
                # The database ends each wait for a lock after 2 s, and the request may wait for longer.
                if not may_wait_again():
                    raise IdempotencyInProgress from earlier
            except CommitInDoubt as doubt:
                written = await certain(here, commit, doubt, partial(self._write_unknown, sent))
                break
        return responses.written(self.request, kind, written)

    async def _submit(self, wish: wishes.Request, request_hash: bytes, command_id: UUID, commit: Commit) -> Accepted:
        here = app_context(self.request)
        submit = partial(
            here.doors.submit.command,
            self.principal,
            self.company_id,
            wish,
            idempotency_key=self.asked.idempotency_key,
            request_hash=request_hash,
            command_id=command_id,
            commit=commit,
        )
        return await here.write(commit, submit)

    async def _answer_doubt(self, command_id: UUID, commit: Commit, doubt: CommitInDoubt) -> Response:
        """Answer 202 if the command is there; 503 that says so if it surely is not, or if that cannot be found out."""
        here = app_context(self.request)

        def unknown() -> CommitUnknown:
            return self._acceptance_unknown(command_id)

        await certain(here, commit, doubt, unknown)
        try:
            with deadline_in(DOUBT_S):
                command = await asked(
                    here.rooms.lookout,
                    here.doors.lookout.accepted,
                    self.principal,
                    command_id,
                    self.asked.idempotency_key,
                )
        except (DatabaseAway, NotFound) as away:
            raise unknown() from away
        is_replay = command.id != command_id
        return responses.still_waiting(self.request, command, {"Idempotent-Replayed": "true"} if is_replay else {})

    def _acceptance_unknown(self, command_id: UUID) -> CommitUnknown:
        key = self.asked.idempotency_key
        check = f"/commands/{command_id}"
        return CommitUnknown(
            "The database went away while it stored the command, so the command may have been accepted. Ask"
            f" GET {check}: if that is still 404 after {_CERTAIN_AFTER_S} s, nothing was accepted."
            + (_SEND_AGAIN if key is not None else _DO_NOT_SEND_AGAIN),
            may_send_again=key is not None,
            commandId=str(command_id),
            check=check,
        )

    def _write_unknown(self, sent: WriteRequest) -> CommitUnknown:
        url = self.request.url
        written: WriteResult | None = None if sent.commit is None else sent.commit.result
        record = None if written is None else written.record
        is_new = record is not None and sent.kind in responses.MAKING
        path = f"{url.path}/{record.id}" if is_new and record is not None else url.path
        check = path + (f"?{url.query}" if url.query else "")
        names = {} if sent.idempotency_key is None else {"commandId": str(sent.command_id)}
        return CommitUnknown(
            "The database went away while it stored this, so it may have been done. Ask"
            f" GET {check} what is there now; after {_CERTAIN_AFTER_S} s that is certain."
            + (_DO_NOT_SEND_AGAIN if sent.idempotency_key is None else _SEND_AGAIN),
            may_send_again=sent.idempotency_key is not None,
            check=check,
            **names,
        )

    async def _earlier(self, request_hash: bytes, stale: Sequence[FieldError]) -> Accepted:
        """What was accepted in time is answered as it was then, however late it is sent again."""
        if self.asked.idempotency_key is not None:
            try:
                earlier = await self._find(self.asked.idempotency_key)
            except NotFound:
                pass
            else:
                if earlier.request_hash == request_hash:
                    return Accepted(command=earlier, replayed=True)
        raise invalid_fields(stale)

    async def _answer(self, accepted: Accepted, metadata: dict[str, Any] | None) -> Response:
        here = app_context(self.request)
        reference = str(accepted.command.id)

        async def look() -> Command:
            with deadline_in(MAX_S):
                return await self._find(reference)

        command = await here.waiter.answer_to(accepted.command, look, self.asked.wait_s)
        set_deadline(MAX_S)  # it is accepted, so what is left is to answer
        headers = {"Idempotent-Replayed": "true"} if accepted.replayed else {}
        if command.state is CommandState.APPLIED:
            try:
                command = await responses.with_titles(self.request, self.principal, command)
                if metadata is None or accepted.replayed:
                    metadata = await responses.live_metadata(self.request, self.principal, command)
            except DatabaseAway:  # it is done all the same, and nobody may be told that it is not
                return responses.still_waiting(self.request, command, headers)
            return responses.applied(self.request, command, metadata, headers)
        runs = command.state is CommandState.WAITING
        if accepted.replayed and runs and not self.asked.respond_async and not here.waiter.keeps_nobody:
            raise IdempotencyInProgress(commandId=reference)
        return responses.still_waiting(self.request, command, headers)

    async def _find(self, reference: str) -> Command:
        here = app_context(self.request)
        return await here.ask(here.doors.submit.find, self.principal, reference)

    def _hash_of(self, raw: dict[str, Any]) -> bytes:
        """Tells this request from any other with the same Idempotency-Key."""
        method, url = self.request.method, self.request.url
        path = f"{url.path}?{url.query}"
        return fingerprint(method.encode(), path.encode(), canonical(raw), self.asked.if_match)


_CERTAIN_AFTER_S = 30
"""Longer than a COMMIT can be on its way: connections are given up after 10 s, idle transactions as well."""
_SEND_AGAIN = " You may send the request again with the same Idempotency-Key: nothing is done twice."
_DO_NOT_SEND_AGAIN = " Do not send the request again before that: without an Idempotency-Key it could be done twice."


async def certain(here: AppContext, commit: Commit, doubt: CommitInDoubt, unknown: Callable[[], CommitUnknown]) -> Any:  # noqa: ANN401 - what the write returns
    """Return the result of a write whose commit was in doubt, once it is certain that it was committed.

    Raises DatabaseAway once it is certain that it was not, and `unknown` when neither can be found out.
    """
    match await here.outcome(commit):
        case Outcome.COMMITTED:
            return commit.result
        case Outcome.ABORTED:
            raise DatabaseAway("the commit was lost") from doubt
        case Outcome.UNKNOWN:
            raise unknown() from doubt


async def sender(request: Request, asking: Annotated[Asker, Depends(asker)], asked: HowAsked) -> CommandDispatcher:
    """Who sends, and how; with the scope that the route names."""
    return CommandDispatcher(request=request, principal=asking.principal, company_id=asking.company_id, asked=asked)


async def sender_of_companies(
    request: Request, principal: Annotated[Principal, Depends(auth.principal)], asked: HowAsked
) -> CommandDispatcher:
    """The same, where the address itself says which company it is about, or there is none yet."""
    return CommandDispatcher(request=request, principal=principal, company_id=None, asked=asked)


FromWriter = Annotated[CommandDispatcher, Security(sender, scopes=[WRITE_INTERVIEWS])]
FromDeleter = Annotated[CommandDispatcher, Security(sender, scopes=[DELETE_INTERVIEWS])]
