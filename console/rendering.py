"""Templates of the console: the pages by name, the environment and its filters, and the page of a request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from console.assembly import console_context
from console.attempt_words import badge_of, end_of, words_of
from scheduler.domain.principal import MAX_NAME, OperatorRole, is_audited
from scheduler.rules.resources import shown

# --- The pages of the console, by name
# Templates and pages link to each other through `link_to` and `page_of`.


@dataclass(frozen=True, kw_only=True)
class Page:
    name: str
    title: str
    path: str


PAGES = (
    Page(name="now", title="Now", path="/"),
    Page(name="companies", title="Companies", path="/companies"),
    Page(name="attempts", title="Attempts", path="/attempts"),
    Page(name="find", title="Find", path="/find"),
    Page(name="unknown", title="Unknown", path="/unknown"),
    Page(name="quarantine", title="Quarantine", path="/quarantine"),
    Page(name="alarms", title="Alarms", path="/alarms"),
    Page(name="calendar", title="Calendar", path="/calendar"),
    Page(name="keys", title="Keys", path="/keys"),
    Page(name="webhooks", title="Webhooks", path="/webhooks"),
    Page(name="batches", title="Batches", path="/batches"),
    Page(name="erasures", title="Erasures", path="/erasures"),
    Page(name="audit", title="Audit", path="/audit"),
)
"""In the order of the navigation."""

_BY_NAME: Mapping[str, Page] = {each.name: each for each in PAGES}


def page_of(name: str, resource_id: object) -> str:
    """Build the address of one resource's page below the page of its list."""
    return f"{_BY_NAME[name].path}/{resource_id}"


def link_to(name: str, **query: str) -> str:
    """Build the address of a page with this filter."""
    path = _BY_NAME[name].path
    return f"{path}?{urlencode(query)}" if query else path


def is_page(address: str) -> bool:
    """Check that an address may be a page of this console, or the form of an act."""
    if not address.isascii() or not address.isprintable() or "\\" in address:
        return False
    path = address.partition("?")[0]
    return path == PAGES[0].path or path.startswith("/acts/") or list_of(path) is not None


def list_of(address: str) -> Page | None:
    """Find the page to whose part of the console an address belongs, or None for the page Now."""
    path = address.partition("?")[0]
    return next((each for each in PAGES[1:] if path == each.path or path.startswith(f"{each.path}/")), None)


# --- Templates of the console: the environment, its filters, and the page of a request


_NOT_FOUND = 404
_TEMPLATES = Path(__file__).parent / "templates"


def environment(now: Callable[[], datetime]) -> Environment:
    """Build the environment. Values are escaped, and a missing value is an error."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(instant=instant, span=span, number=number, number_of=number_of, name=name, rate=rate)
    made.globals.update(pages=PAGES, link_to=link_to, page_of=page_of, roles=OperatorRole, utc_now=now)
    made.globals.update(attribute=attribute, badge_of=badge_of, end_of=end_of, words_of=words_of, is_audited=is_audited)
    return made


def page(
    request: Request,
    template: str,
    status: int = 200,
    given: Mapping[str, object] | None = None,
    **values: object,
) -> HTMLResponse:
    """Render a page for the operator of the request, with the `given` values and the others."""
    shown = console_context(request).templates.get_template(template)
    session = getattr(request.state, "session", None)
    return HTMLResponse(shown.render(session=session, path=request.url.path, **(given or {}), **values), status)


def not_found(request: Request, title: str, text: str) -> HTMLResponse:
    """Render the page for a resource that does not exist."""
    return page(request, "error.html", _NOT_FOUND, title=title, text=text)


def instant(at: datetime) -> Markup:
    """Format a time in UTC. The script adds the browser's zone and the distance from now."""
    utc = at.astimezone(UTC)
    machine = utc.isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{}</time>').format(machine, utc_text(utc))


def attribute(row: object, name: str) -> str:
    """Format an attribute of a row by its type, None as an empty text. The name may lead through several objects."""
    value = attrgetter(name)(row)
    if value is None:
        return ""
    if isinstance(value, datetime):
        return instant(value)
    return number(value) if isinstance(value, int) else str(value)


def utc_text(at: datetime) -> str:
    """Format a time in UTC, for a sentence."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def value_text(value: object) -> str:
    """Format a stored value. A text that is a time with an offset is written as all times of the console."""
    text = str(value)
    try:
        at = datetime.fromisoformat(text) if "T" in text else None
    except ValueError:
        at = None
    return text if at is None or at.tzinfo is None else utc_text(at)


def span(duration: timedelta | None) -> str:
    """Format a duration in its two largest units."""
    if duration is None:
        return "none"
    seconds = int(duration.total_seconds())
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    parts = []
    for size, unit in units:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def number(count: int) -> str:
    return f"{count:,}"


def number_of(count: int, one: str, many: str) -> str:
    """Format a count with its noun or clause, in the singular or in the plural."""
    return f"{number(count)} {one if count == 1 else many}"


def none_or_number_of(count: int, none: str, one: str, many: str) -> str:
    """Format a count with its noun, with a text of its own for 0."""
    return number_of(count, one, many) if count else none


def name(chosen: str | None) -> str:
    """Format a name that a client has chosen, in one line and without invisible characters."""
    return shown(chosen, MAX_NAME)


def rate(per_second: Decimal) -> str:
    """Format a limit of calls per second without trailing zeros."""
    return f"{per_second.normalize():,f}"
