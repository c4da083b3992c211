"""How a request becomes a command, and how what became of it is told: the same for every command route."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Concatenate, ParamSpec
from uuid import UUID

from fastapi import Depends, Request, Security
from fastapi.responses import Response

from api_shim import answers, auth
from api_shim.asked import Asked, HowAsked
from api_shim.auth import DELETE_INTERVIEWS, WRITE_INTERVIEWS, Asker, asker
from api_shim.errors import IdempotencyInProgress
from api_shim.house import house
from scheduler.domain import command as wishes
from scheduler.domain.command import Command, CommandKind, CommandState
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import NotFound
from scheduler.hashing import fingerprint
from scheduler.persistence.database import DatabaseAway
from scheduler.persistence.inbox import StillRunning
from scheduler.use_cases.submit import Accepted
from scheduler.use_cases.writes import Sent, Written
from scheduler.wire.fields import FieldError, invalid_fields
from scheduler.wire.json_values import canonical
from scheduler.wire.named_fields import of_write

P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Who sends a command, about which company, and how they want it done."""

    request: Request
    principal: Principal
    company_id: UUID | None
    asked: Asked

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
        accepted = await (self._earlier(request_hash, stale) if stale else self._submit(wish, request_hash))
        return await self._answer(accepted, metadata)

    async def write(
        self,
        kind: CommandKind,
        verb: Callable[Concatenate[Sent, P], Written],
        raw: dict[str, Any],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Response:
        """Have the API do it now, and tell what became of it. `raw` is the body as it was sent."""
        here = house(self.request)
        sent = Sent(
            kind=kind,
            principal=self.principal,
            idempotency_key=self.asked.idempotency_key,
            request_hash=self._hash_of(raw),
            fields=of_write(kind, raw),
        )
        try:
            written = await here.ask(verb, sent, *args, **kwargs)
        except StillRunning as earlier:
            raise IdempotencyInProgress from earlier
        return answers.written(self.request, kind, written)

    async def _submit(self, wish: wishes.Request, request_hash: bytes) -> Accepted:
        here = house(self.request)
        return await here.ask(
            here.doors.submit.command,
            self.principal,
            self.company_id,
            wish,
            idempotency_key=self.asked.idempotency_key,
            request_hash=request_hash,
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
        here = house(self.request)
        reference = str(accepted.command.id)
        command = await here.waiter.answer_to(accepted.command, lambda: self._find(reference), self.asked.wait_s)
        headers = {"Idempotent-Replayed": "true"} if accepted.replayed else {}
        if command.state is CommandState.APPLIED:
            try:
                command = await answers.with_titles(self.request, self.principal, command)
                if metadata is None or accepted.replayed:
                    metadata = await answers.live_metadata(self.request, self.principal, command)
            except DatabaseAway:  # it is done all the same, and nobody may be told that it is not
                return answers.still_waiting(self.request, command, headers)
            return answers.applied(self.request, command, metadata, headers)
        runs = command.state is CommandState.WAITING
        if accepted.replayed and runs and not self.asked.respond_async and not here.waiter.keeps_nobody:
            raise IdempotencyInProgress(commandId=reference)
        return answers.still_waiting(self.request, command, headers)

    async def _find(self, reference: str) -> Command:
        here = house(self.request)
        return await here.ask(here.doors.submit.find, self.principal, reference)

    def _hash_of(self, raw: dict[str, Any]) -> bytes:
        """Tells this request from any other with the same Idempotency-Key."""
        method, url = self.request.method, self.request.url
        path = f"{url.path}?{url.query}"
        return fingerprint(method.encode(), path.encode(), canonical(raw), self.asked.if_match)


async def sender(request: Request, asking: Annotated[Asker, Depends(asker)], asked: HowAsked) -> Sender:
    """Who sends, and how; with the scope that the route names."""
    return Sender(request=request, principal=asking.principal, company_id=asking.company_id, asked=asked)


async def sender_of_companies(
    request: Request, principal: Annotated[Principal, Depends(auth.principal)], asked: HowAsked
) -> Sender:
    """The same, where the address itself says which company it is about, or there is none yet."""
    return Sender(request=request, principal=principal, company_id=None, asked=asked)


FromWriter = Annotated[Sender, Security(sender, scopes=[WRITE_INTERVIEWS])]
FromDeleter = Annotated[Sender, Security(sender, scopes=[DELETE_INTERVIEWS])]
