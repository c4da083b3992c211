"""The pages of the console, by name. Templates link to a page only if it exists."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode


@dataclass(frozen=True, kw_only=True)
class Page:
    name: str
    title: str
    path: str
    exists: bool = True


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
    Page(name="erasures", title="Erasures", path="/erasures"),
    Page(name="audit", title="Audit", path="/audit"),
)
"""In the order of the navigation. Set `exists` when the route is added."""

_BY_NAME: Mapping[str, Page] = {each.name: each for each in PAGES}


def page_of(name: str, resource_id: object) -> str | None:
    """Return the address of one resource's page below the page of its list, or None while that does not exist."""
    page = _BY_NAME[name]
    return f"{page.path}/{resource_id}" if page.exists else None


def link_to(name: str, **query: str) -> str | None:
    """Return the address of a page with this filter, or None while the page does not exist."""
    page = _BY_NAME[name]
    if not page.exists:
        return None
    return f"{page.path}?{urlencode(query)}" if query else page.path
