"""The page Now: the state of the whole installation, the pause of all calls, and the fragments that `live` sends."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from redis import RedisError
from starlette.responses import Response

from console.acts import Act, act_routes, began, due_now, pause, pending_calls, placed_at_once, resume
from console.assembly import ConsoleContext, ConsoleUseCases, console_context
from console.attempt_words import HOLDS
from console.operators import viewer
from console.reads.installation import Overview
from console.rendering import none_or_number_of, number, page
from console.stores.sessions import ConsoleSession
from scheduler.timing.zone_names import TZDATA_VERSION
from scheduler.use_cases.shared.hints import QUEUES

router = APIRouter()
FRAGMENTS = ("banner", "now-acts", "now-carrier", "now-calls", "now-work", "now-system")
"""Ids of elements, each with a template in `fragments/`."""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """The processes and versions behind the counts."""

    workers: Mapping[str, int] | None
    """Live workers by queue. None: Redis does not answer."""
    tzdata: frozenset[str]
    """Versions of the tz database in the live processes and in this one."""
    is_clock_right: bool
    schema: str | None
    schema_head: str

    @property
    def unserved(self) -> tuple[str, ...]:
        """Queues without a live worker."""
        return () if self.workers is None else tuple(name for name, count in self.workers.items() if not count)

    @property
    def version(self) -> str:
        return metadata.version("duecall")


@router.get("/")
async def now(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context = console_context(request)
    return page(request, "now.html", given=await state(context))


async def state(context: ConsoleContext) -> dict[str, object]:
    """Read the values for the templates. Raises DatabaseAway."""
    overview: Overview = await context.run(context.use_cases.pages.overview)
    installation = await _installation(context)
    return {"overview": overview, "installation": installation, "holds": HOLDS}


async def fragments(context: ConsoleContext) -> Mapping[str, str]:
    """Render the fragments of the page by their ids. Raises DatabaseAway."""
    values = await state(context)
    return {
        name: context.templates.get_template(f"fragments/{name}.html").render(**values).strip() for name in FRAGMENTS
    }


async def _installation(context: ConsoleContext) -> Installation:
    database = context.use_cases.database
    try:
        live = await context.run(context.presence.live)
    except (OSError, RedisError):
        live = None
    served = Counter(queue for each in live or () for queue in each.queues)
    return Installation(
        workers=None if live is None else {queue: served[queue] for queue in sorted(set(QUEUES.values()))},
        tzdata=frozenset({TZDATA_VERSION, *(each.tzdata for each in live or ())}),
        is_clock_right=await context.run(database.clock_is_right),
        schema=await context.run(database.schema_revision),
        schema_head=context.schema_head,
    )


_CONTINUE = ("call in progress continues", "calls in progress continue")
_STAY = ("company that is paused separately stays paused", "companies that are paused separately stay paused")


def _pause_preview(use_cases: ConsoleUseCases, _: None) -> Sequence[str]:
    overview = use_cases.pages.overview()
    if overview.pause_reason is not None:
        existing = use_cases.pauses().current(None)
        lines = [f"All calls are paused already: {overview.pause_reason}. Pausing again changes nothing."]
        return lines if existing is None else [*lines, began(use_cases, existing)]
    return [
        f"All companies ({number(len(overview.companies))}) are affected.",
        f"{pending_calls(overview.companies)} will wait until calls are resumed.",
        due_now(overview.sum("due")),
        f"{none_or_number_of(overview.sum('in_progress'), 'No call is in progress', *_CONTINUE)}.",
    ]


def _resume_preview(use_cases: ConsoleUseCases, _: None) -> Sequence[str]:
    overview = use_cases.pages.overview()
    if overview.pause_reason is None:
        return ["All calls are running. Resuming changes nothing."]
    return [
        f"The pause of all calls ends. Its reason was: {overview.pause_reason}",
        placed_at_once(overview.sum("due"), "at the account's pace"),
        f"{none_or_number_of(overview.sum('paused'), 'No company is paused separately', *_STAY)}.",
    ]


PAUSE_EVERYTHING = Act(
    name="pause-everything",
    title="Pause all calls",
    verb="Pause all calls",
    read=lambda _: None,
    preview=_pause_preview,
    run=pause,
    back=lambda _: "/",
    is_danger=True,
)
RESUME_EVERYTHING = Act(
    name="resume-everything",
    title="Resume all calls",
    verb="Resume all calls",
    read=lambda _: None,
    preview=_resume_preview,
    run=resume,
    back=lambda _: "/",
)
router.routes.extend(act_routes(PAUSE_EVERYTHING, RESUME_EVERYTHING).routes)
