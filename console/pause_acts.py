"""A pause of one company or of all calls, and its end, as acts of operators."""

from collections.abc import Iterable
from uuid import UUID

from console.assembly import ConsoleUseCases
from console.rendering import none_or_number_of, number, number_of, utc_text
from scheduler.domain.refusals import Conflict
from scheduler.use_cases.operations.pauses import Pause
from scheduler.use_cases.shared.status import Waiting


def pause(use_cases: ConsoleUseCases, actor: str, reason: str, company_id: UUID | None) -> None:
    """Pause one company, or all. Raises Conflict if it is paused already: the page would show another reason."""
    existing = use_cases.pauses(actor).pause(company_id, reason)
    if existing is not None:
        raise Conflict(f"{began(use_cases, existing)} Its reason is: {existing.reason}. Your reason was not stored.")


def resume(use_cases: ConsoleUseCases, actor: str, reason: str, company_id: UUID | None) -> None:
    """Resume one company, or all. Raises Conflict if it is not paused."""
    if use_cases.pauses(actor).resume(company_id, reason) is None:
        raise Conflict("The pause has ended already. Nothing was changed, and your reason was not stored.")


def pending_calls(attempts: Iterable[Waiting]) -> str:
    """Return the number of calls that a pause affects, with its noun."""
    counted = tuple(attempts)
    count = sum(each.waiting + each.due for each in counted)
    if any(each.waiting_is_estimate for each in counted):
        return f"{number(count)}+ pending calls"
    return number_of(count, "pending call", "pending calls")


def due_now(count: int) -> str:
    return f"{none_or_number_of(count, 'None of them is', 'of them is', 'of them are')} due now."


def placed_at_once(due: int, within: str) -> str:
    """Say what becomes of due calls after a pause. `within`: the limits that still apply."""
    if due == 1:
        return f"1 call is due. It is placed at once if it is within calling hours, {within}."
    if not due:
        return "No call is due."
    return f"{number(due)} calls are due. Those within calling hours are placed at once, {within}."


def began(use_cases: ConsoleUseCases, existing: Pause) -> str:
    """Return who began a pause, and when. A pause by an alarm has no such actor, and says so in its reason."""
    at, actor = utc_text(existing.paused_at), existing.actor
    if actor is None:
        return f"The pause began at {at}."
    creator = use_cases.audit.link_creators([actor]).get(actor)
    by = actor if creator is None else f"{actor} (link created by {creator})"
    return f"The pause began at {at} by {by}."
