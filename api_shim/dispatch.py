"""Senders: send the command of a request and wait for its result, or carry out its write, and build the response."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Concatenate, ParamSpec
from uuid import UUID

from fastapi import Depends, Request, Security
from fastapi.responses import Response
from starlette.background import BackgroundTask

from api_shim import auth, responses
from api_shim.assembly import DOUBT_S, AppContext, app_context
from api_shim.auth import DELETE_INTERVIEWS, WRITE_INTERVIEWS, Client, authenticated_client
from api_shim.errors import CommitUnknown, IdempotencyInProgress
from api_shim.request_input import HowAsked, Preferences, Preferred, RequestOptions
from api_shim.responses import ClientTexts
from api_shim.thread_pools import MAX_S, run_in_thread, run_write
from scheduler.clock import deadline_in, set_deadline
from scheduler.domain import command as commands
from scheduler.domain.command import Command, CommandKind, CommandState, RequestHashes
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import NotFound
from scheduler.hashing import fingerprint
from scheduler.ids import new_id
from scheduler.persistence.database import may_wait_again
from scheduler.persistence.errors import Commit, CommitInDoubt, DatabaseAway, Outcome
from scheduler.persistence.inbox import StillRunning
from scheduler.use_cases.resources.idempotent_writes import WriteRequest, WriteResult
from scheduler.use_cases.submit import Accepted
from scheduler.wire.json_values import canonical
from scheduler.wire.named_fields import FieldError, invalid_fields, of_write

P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True)
class Sender(Client):
    """The client of a request that changes something."""

    request: Request
    asked: RequestOptions

    def hashes_of(self, raw: dict[str, Any] | bytes) -> RequestHashes:
        """Compute the hashes that distinguish this request from others with the same Idempotency-Key."""
        former_hash = self._fingerprint_of(raw)
        return {"request_hash": self.use_cases.hasher.request_content(former_hash), "former_hash": former_hash}

    def _fingerprint_of(self, raw: dict[str, Any] | bytes) -> bytes:
        method, url = self.request.method, self.request.url
        path = f"{url.path}?{url.query}"
        body = raw if isinstance(raw, bytes) else canonical(raw)
        return fingerprint(method.encode(), path.encode(), body, self.asked.if_match)


@dataclass(frozen=True, kw_only=True)
class CommandSender(Sender):
    """Sends the command of one request to the workers."""

    preferred: Preferences

    async def command(
        self,
        requested: commands.Request,
        raw: dict[str, Any],
        *,
        texts: ClientTexts | None = None,
        stale: Sequence[FieldError] = (),
    ) -> Response:
        """Submit a command, wait for its result and return the response.

        `raw` is the body as it was sent. `texts` are those of the interview that the request creates. They are known
        without a query. `stale` are errors in fields that may have been valid when this request was first sent.
        """
        hashes = self.hashes_of(raw)
        if stale:
            return await self._answer(await self._earlier(hashes, stale), texts)
        command_id, commit = new_id(self.use_cases.now()), Commit()
        submit = partial(
            self.use_cases.submit.command,
            self.principal,
            self.company_id,
            requested,
            idempotency_key=self.asked.idempotency_key,
            **hashes,
            command_id=command_id,
            commit=commit,
            awaited_for=self._awaited_for(),
        )
        try:
            accepted = await run_write(self.context.threads.requests, commit, submit)
        except CommitInDoubt as doubt:
            return await self._answer_doubt(command_id, commit, doubt)
        return await self._answer(accepted, texts)

    async def _answer_doubt(self, command_id: UUID, commit: Commit, doubt: CommitInDoubt) -> Response:
        """Answer 202 if the command was stored. Raises DatabaseAway if it certainly was not, CommitUnknown in doubt."""
        unknown = partial(self._acceptance_unknown, command_id)
        await confirm_commit(self.context, commit, doubt, unknown)
        try:
            with deadline_in(DOUBT_S):
                command = await run_in_thread(
                    self.context.threads.lookups,
                    self.use_cases.command_lookup.accepted,
                    self.principal,
                    command_id,
                    self.asked.idempotency_key,
                )
        except (DatabaseAway, NotFound) as away:
            raise unknown() from away
        is_replay = command.id != command_id
        if is_replay and (command.applied_at is not None or command.awaited_until is not None):
            # Its refusal may be the response of the first request. After a 202, a partner event would have to follow.
            raise unknown() from doubt
        return responses.still_waiting(self.request, command, {"Idempotent-Replayed": "true"} if is_replay else {})

    def _acceptance_unknown(self, command_id: UUID) -> CommitUnknown:
        key = self.asked.idempotency_key
        check = f"/commands/{command_id}"
        return CommitUnknown(
            "The database connection was lost, so the command may have been accepted. Send"
            f" GET {check}: if it still returns 404 after {_CERTAIN_AFTER_S} s, nothing was accepted."
            + (_SEND_AGAIN if key is not None else _DO_NOT_SEND_AGAIN),
            may_send_again=key is not None,
            commandId=str(command_id),
            check=check,
        )

    async def _earlier(self, hashes: RequestHashes, stale: Sequence[FieldError]) -> Accepted:
        """Find the command that the same request created while its fields were valid. Raises InvalidFields."""
        if self.asked.idempotency_key is not None:
            try:
                earlier = await self._find(self.asked.idempotency_key)
            except NotFound:
                pass
            else:
                if earlier.is_of_request(**hashes):
                    return Accepted(command=earlier, replayed=True)
        raise invalid_fields(stale)

    async def _answer(self, accepted: Accepted, texts: ClientTexts | None) -> Response:
        look = partial(self.context.find_command, self.principal, accepted.command.id)
        command = await self.context.waiter.answer_to(accepted.command, look, self.preferred.wait_s)
        set_deadline(MAX_S)  # the command is accepted, so the response gets a deadline of its own
        is_waiting = command.state is CommandState.WAITING
        if accepted.replayed and is_waiting and not self.preferred.respond_async and not self.context.waiter.is_off:
            raise IdempotencyInProgress(commandId=str(command.id))
        if command.state is not CommandState.APPLIED:
            command = await self._end_wait(command, is_first=not accepted.replayed)
        headers = {"Idempotent-Replayed": "true"} if accepted.replayed else {}
        if command.state is not CommandState.APPLIED:
            return responses.still_waiting(self.request, command, headers)
        try:
            command = await responses.with_titles(self.request, self.principal, command)
            existed = command.answer is not None and command.answer.existed is True
            if texts is None or accepted.replayed or existed:
                texts = await responses.live_texts(self.request, self.principal, command)
        except DatabaseAway:  # the command is applied, so 503 "nothing was changed" would be wrong
            if accepted.replayed and command.is_refused:
                raise  # the first request may have returned the refusal, and then no event follows
            return responses.still_waiting(self.request, command, headers)
        response = responses.applied(self.request, command, texts, headers)
        if command.is_refused_while_awaited and not accepted.replayed and not await self.request.is_disconnected():
            response.background = BackgroundTask(self._note_returned, command.id)
        return response

    def _awaited_for(self) -> timedelta:
        """Compute the longest time from now after which the answer of a worker is the response."""
        if self.preferred.wait_s <= 0 or self.context.waiter.is_off:
            return timedelta()
        return timedelta(seconds=self.preferred.wait_s + MAX_S)

    async def _end_wait(self, command: Command, *, is_first: bool) -> Command:
        """Leave the command's refusal to a partner event before 202 is returned. Return it as applied if it was.

        Only the first request says that it has returned a refusal. So if this fails for the first request, the clock
        reports the refusal. Another request may not return 202 then. Raises DatabaseAway.
        """
        if command.awaited_until is None:
            return command
        try:
            if not await self.context.ask(self.use_cases.submit.end_wait, self.principal, command.id):
                return await self.context.find_command(self.principal, command.id)
        except DatabaseAway:
            if not is_first:
                raise
        return command

    async def _note_returned(self, command_id: UUID) -> None:
        with contextlib.suppress(DatabaseAway):  # a superfluous event follows
            await self.context.ask(self.use_cases.submit.returned, self.principal, command_id)

    async def _find(self, reference: str) -> Command:
        return await self.context.ask(self.use_cases.submit.find, self.principal, reference)


@dataclass(frozen=True, kw_only=True)
class WriteSender(Sender):
    """Carries out the write of one request in this process."""

    async def write(
        self,
        kind: CommandKind,
        verb: Callable[Concatenate[WriteRequest, P], WriteResult],
        raw: dict[str, Any] | bytes,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Response:
        """Run a write in this process and return the response. `raw` is the body as it was sent, or its digest."""
        return responses.written(self.request, kind, await self.carry_out(kind, verb, raw, *args, **kwargs))

    async def carry_out(
        self,
        kind: CommandKind,
        verb: Callable[Concatenate[WriteRequest, P], WriteResult],
        raw: dict[str, Any] | bytes,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> WriteResult:
        """Run a write in this process. `raw` is the body as it was sent, or its digest."""
        sent = WriteRequest(
            kind=kind,
            principal=self.principal,
            idempotency_key=self.asked.idempotency_key,
            **self.hashes_of(raw),
            fields={} if isinstance(raw, bytes) else of_write(kind, raw),
            command_id=new_id(self.use_cases.now()),
            trace_id=self.request.state.trace_id,
        )
        while True:
            # A Commit belongs to one transaction, so each try needs a new one.
            commit = Commit()
            sent = replace(sent, commit=commit)
            try:
                return await run_write(self.context.threads.requests, commit, partial(verb, sent, *args, **kwargs))
            except StillRunning as earlier:
                # The database ends each wait for a lock after 2 s, but the request may wait longer.
                if not may_wait_again():
                    raise IdempotencyInProgress from earlier
            except CommitInDoubt as doubt:
                written: WriteResult = await confirm_commit(
                    self.context, commit, doubt, partial(self._write_unknown, sent)
                )
                return written

    def _write_unknown(self, sent: WriteRequest) -> CommitUnknown:
        url = self.request.url
        written: WriteResult | None = None if sent.commit is None else sent.commit.result
        record = None if written is None else written.record
        path = url.path if record is None or sent.kind not in responses.MAKING else f"{url.path}/{record.id}"
        check = path + (f"?{url.query}" if url.query else "")
        names = {} if sent.idempotency_key is None else {"commandId": str(sent.command_id)}
        return CommitUnknown(
            "The database connection was lost, so the change may have been applied. Send"
            f" GET {check} to find out. After {_CERTAIN_AFTER_S} s its response is final."
            + (_DO_NOT_SEND_AGAIN if sent.idempotency_key is None else _SEND_AGAIN),
            may_send_again=sent.idempotency_key is not None,
            check=check,
            **names,
        )


_CERTAIN_AFTER_S = 30
"""Longer than a COMMIT can be in flight: connections and idle transactions are closed after 10 s."""
_SEND_AGAIN = " You may send the request again with the same Idempotency-Key: it is not applied twice."
_DO_NOT_SEND_AGAIN = " Do not send the request again before that: without an Idempotency-Key it could be applied twice."


async def confirm_commit(
    context: AppContext, commit: Commit, doubt: CommitInDoubt, unknown: Callable[[], CommitUnknown]
) -> Any:  # noqa: ANN401 - what the write returns
    """Find the result of a write whose commit was in doubt, if it was committed.

    Raises DatabaseAway if it was not committed, and `unknown` if that cannot be determined.
    """
    match await context.outcome(commit):
        case Outcome.COMMITTED:
            return commit.result
        case Outcome.ABORTED:
            raise DatabaseAway("the commit was lost") from doubt
        case Outcome.UNKNOWN:
            raise unknown() from doubt


async def command_sender(
    request: Request, client: Annotated[Client, Depends(authenticated_client)], asked: HowAsked, preferred: Preferred
) -> CommandSender:
    """Build the sender of a command. The route names the required scope."""
    return CommandSender(**vars(client), request=request, asked=asked, preferred=preferred)


async def write_sender(
    request: Request, client: Annotated[Client, Depends(authenticated_client)], asked: HowAsked, _preferred: Preferred
) -> WriteSender:
    """Build the sender of a write, which waits for no worker. The route names the required scope."""
    return WriteSender(**vars(client), request=request, asked=asked)


async def sender_of_principal(
    request: Request, principal: Annotated[Principal, Depends(auth.principal)], asked: HowAsked, _preferred: Preferred
) -> WriteSender:
    """Build the sender of a write that is not within a company: of a company itself, or of a principal's webhook."""
    context = app_context(request)
    return WriteSender(request=request, context=context, principal=principal, company_id=None, asked=asked)


InterviewWriter = Annotated[CommandSender, Security(command_sender, scopes=[WRITE_INTERVIEWS])]
InterviewDeleter = Annotated[CommandSender, Security(command_sender, scopes=[DELETE_INTERVIEWS])]
