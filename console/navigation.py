"""The pages of the console, by name. Templates and pages link to each other through `link_to` and `page_of`."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode


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
    """Return the address of one resource's page below the page of its list."""
    return f"{_BY_NAME[name].path}/{resource_id}"


def link_to(name: str, **query: str) -> str:
    """Return the address of a page with this filter."""
    path = _BY_NAME[name].path
    return f"{path}?{urlencode(query)}" if query else path


def is_page(address: str) -> bool:
    """Return True for an address of this console at which a page or the form of an act may be."""
    if not address.isascii() or not address.isprintable() or "\\" in address:
        return False
    path = address.partition("?")[0]
    return path == PAGES[0].path or path.startswith("/acts/") or list_of(path) is not None


def list_of(address: str) -> Page | None:
    """Return the page to whose part of the console an address belongs, or None for the page Now."""
    path = address.partition("?")[0]
    return next((each for each in PAGES[1:] if path == each.path or path.startswith(f"{each.path}/")), None)
