"""A pause of one company or of all calls, and its end, as acts of operators."""

from uuid import UUID

from api_shim.console.rendering import utc_text
from scheduler.assembly import ConsoleUseCases
from scheduler.domain.refusals import Conflict
from scheduler.use_cases.operations.pauses import Pause


def pause(use_cases: ConsoleUseCases, actor: str, reason: str, company_id: UUID | None) -> None:
    """Pause one company, or all. Raises Conflict if it is paused already: the page would show another reason."""
    existing = use_cases.pauses(actor).pause(company_id, reason)
    if existing is not None:
        raise Conflict(f"{began(use_cases, existing)} Its reason is: {existing.reason}. Your reason was not stored.")


def resume(use_cases: ConsoleUseCases, actor: str, reason: str, company_id: UUID | None) -> None:
    """Resume one company, or all. Raises Conflict if it is not paused."""
    if use_cases.pauses(actor).resume(company_id, reason) is None:
        raise Conflict("The pause has ended already. Nothing was changed, and your reason was not stored.")


def began(use_cases: ConsoleUseCases, existing: Pause) -> str:
    """Return who began a pause, and when. A pause by an alarm has no such actor, and says so in its reason."""
    at, actor = utc_text(existing.paused_at), existing.actor
    if actor is None:
        return f"The pause began at {at}."
    creator = use_cases.audit.link_creators([actor]).get(actor)
    by = actor if creator is None else f"{actor} (link created by {creator})"
    return f"The pause began at {at} by {by}."
