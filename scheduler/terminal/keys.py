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
    """Return each key's owner, state, scopes, rate limits and times. Secrets are not stored."""
    return Group(*(_key(key, now) for key in keys)) if keys else Text("There are no API keys.")


def _key(key: Key, now: datetime) -> Text:
    state = key.state(now)
    text = Text(f"Key       {key.principal.key_id}  ").append(state.value, _KEY_STYLES[state])
    if key.suspend_reason is not None:
        text.append(f": {key.suspend_reason}")
    for name, value in _facts(key, now):
        text.append(f"\n  {name:<13} ", "dim").append(value)
    return text.append("\n")


def _facts(key: Key, now: datetime) -> Iterator[tuple[str, str]]:
    principal = key.principal
    name = shown(key.name, MAX_NAME)
    yield "owner", f"company {principal.company_id}, {name}" if principal.company_id is not None else f"ATS {name}"
    yield "principal", str(principal.id)
    yield "scopes", ", ".join(sorted(principal.scopes))
    yield "rate limits", f"{key.per_minute} per minute, {key.per_hour} per hour"
    yield "created", utc(key.created_at)
    if key.expires_at is not None:
        yield "expires", f"{utc(key.expires_at)}, {from_now(key.expires_at, now)}"
    yield "last used", "never" if key.last_used_at is None else utc(key.last_used_at)


def keys_as_json(keys: Sequence[Key], now: datetime) -> list[dict[str, Any]]:
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
