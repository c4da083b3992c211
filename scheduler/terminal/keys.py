"""The page of API keys, and its JSON."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from scheduler.domain.key import MAX_NAME, Key, KeyState
from scheduler.rules.display_names import shown
from scheduler.terminal.json_text import as_json
from scheduler.terminal.text import from_now, utc

_KEY_STYLES = {
    KeyState.ACTIVE: "green",
    KeyState.SUSPENDED: "bold yellow",
    KeyState.EXPIRED: "magenta",
    KeyState.REVOKED: "magenta",
}


def keys_page(keys: Sequence[Key], now: datetime) -> RenderableType:
    """Each key: whose it is, how it stands, what it opens, how often it may ask. Keys themselves are kept nowhere."""
    return Group(*(_key(each, now) for each in keys)) if keys else Text("There is no key.")


def _key(key: Key, now: datetime) -> Text:
    state = key.state(now)
    text = Text(f"Key       {key.principal.key_id}  ").append(state.value, _KEY_STYLES[state])
    if key.suspend_reason is not None:
        text.append(f": {key.suspend_reason}")
    for name, told in _of_key(key, now):
        text.append(f"\n  {name:<13} ", "dim").append(told)
    return text.append("\n")


def _of_key(key: Key, now: datetime) -> Iterator[tuple[str, str]]:
    principal = key.principal
    name = shown(key.name, MAX_NAME)
    yield "of", f"company {principal.company_id}, {name}" if principal.company_id is not None else f"ATS {name}"
    yield "principal", str(principal.id)
    yield "opens", ", ".join(sorted(principal.scopes))
    yield "may ask", f"{key.per_minute} times a minute, {key.per_hour} an hour"
    yield "made", utc(key.created_at)
    if key.expires_at is not None:
        yield "good until", f"{utc(key.expires_at)}, {from_now(key.expires_at, now)}"
    yield "last used", "never" if key.last_used_at is None else utc(key.last_used_at)


def keys_as_json(keys: Sequence[Key], now: datetime) -> list[dict[str, Any]]:
    """Names as on the wire; instants in UTC."""
    return [
        as_json(
            {
                "key_id": key.principal.key_id,
                "principal_id": key.principal.id,
                "kind": key.principal.kind.value,
                "company_id": key.principal.company_id,
                "name": shown(key.name, MAX_NAME),
                "state": key.state(now).value,
                "scopes": sorted(key.principal.scopes),
                "per_minute": key.per_minute,
                "per_hour": key.per_hour,
                "created_at": key.created_at,
                "expires_at": key.expires_at,
                "suspended_at": key.suspended_at,
                "suspend_reason": key.suspend_reason,
                "revoked_at": key.revoked_at,
                "last_used_at": key.last_used_at,
            }
        )
        for key in keys
    ]
