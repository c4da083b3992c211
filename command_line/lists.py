"""The pages of alarms, API keys and the audit, and their JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic.alias_generators import to_camel
from rich.console import Group, RenderableType
from rich.text import Text

from command_line.terminal import add_facts, as_json, from_now, utc
from scheduler.domain.alarm import KeptAlarm, meaning_of
from scheduler.domain.principal import MAX_NAME, AuditEntry, Key, KeyState
from scheduler.rules.resources import shown

# --- The page of alarms, and its JSON


def alarms_page(alarms: Sequence[KeptAlarm], now: datetime) -> RenderableType:
    """Show each alarm with its count, ids and times."""
    return Group(*(_alarm(each, now) for each in alarms)) if alarms else Text("There are no open alarms.")


def _alarm(alarm: KeptAlarm, now: datetime) -> Text:
    text = Text(f"Alarm     {alarm.id}  ")
    text.append(alarm.kind, "bold red" if alarm.acknowledged_at is None else "green")
    text.append(f"\n  {meaning_of(alarm.kind)}")
    return add_facts(text, _facts(alarm, now)).append("\n")


def _facts(alarm: KeptAlarm, now: datetime) -> Iterator[tuple[str, str]]:
    for name, value in alarm.subjects.items():
        yield name.removesuffix("_id"), value
    yield "first seen", f"{utc(alarm.first_seen_at)}, {from_now(alarm.first_seen_at, now)}"
    if alarm.count > 1:
        yield "last seen", f"{utc(alarm.last_seen_at)}, {alarm.count} times in all"
    if alarm.acknowledged_at is not None:
        yield "acknowledged", f"{utc(alarm.acknowledged_at)} by {alarm.acknowledged_by}"
    if alarm.note is not None:
        yield "note", alarm.note
    if alarm.posted_at is not None:
        yield "posted", utc(alarm.posted_at)
    elif alarm.tries and alarm.post_at is not None:
        yield "not posted", f"tries: {alarm.tries}; next try {from_now(alarm.post_at, now)}"
    elif alarm.tries:
        yield "not posted", f"tries: {alarm.tries}"


def alarms_as_json(alarms: Sequence[KeptAlarm]) -> list[dict[str, Any]]:
    return [
        as_json(**asdict(each)) | {"subjects": {to_camel(name): value for name, value in each.subjects.items()}}
        for each in alarms
    ]


# --- The page of API keys, and its JSON


_KEY_STYLES = {
    KeyState.ACTIVE: "green",
    KeyState.SUSPENDED: "bold yellow",
    KeyState.EXPIRED: "magenta",
    KeyState.REVOKED: "magenta",
}


def keys_page(keys: Sequence[Key], now: datetime) -> RenderableType:
    """Show each key's owner, state, scopes, rate limits and times. Secrets are not stored."""
    return Group(*(_key(key, now) for key in keys)) if keys else Text("There are no API keys.")


def _key(key: Key, now: datetime) -> Text:
    state = key.state(now)
    text = Text(f"Key       {key.principal.key_id}  ").append(state.value, _KEY_STYLES[state])
    if key.suspend_reason is not None:
        text.append(f": {key.suspend_reason}")
    return add_facts(text, _key_facts(key, now)).append("\n")


def _key_facts(key: Key, now: datetime) -> Iterator[tuple[str, str]]:
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
            key_id=key.principal.key_id,
            principal_id=key.principal.id,
            kind=key.principal.kind.value,
            company_id=key.principal.company_id,
            name=shown(key.name, MAX_NAME),
            state=key.state(now).value,
            scopes=sorted(key.principal.scopes),
            per_minute=key.per_minute,
            per_hour=key.per_hour,
            created_at=key.created_at,
            expires_at=key.expires_at,
            suspended_at=key.suspended_at,
            suspend_reason=key.suspend_reason,
            revoked_at=key.revoked_at,
            last_used_at=key.last_used_at,
        )
        for key in keys
    ]


# --- The page of the audit, and its JSON


def audit_page(entries: Sequence[AuditEntry], creators: Mapping[str, str], *, has_more: bool) -> RenderableType:
    """Show each act with its actor, target, reason and change. `has_more`: older entries exist.

    `creators` are those of sign-in links, by the actors with these links.
    """
    if not entries:
        return Text("There are no such entries.")
    lines = [_entry(each, creators) for each in entries]
    if has_more:
        lines.append(Text(f"Older entries: duecall audit --before {entries[-1].id}", "dim"))
    return Group(*lines)


def _entry(entry: AuditEntry, creators: Mapping[str, str]) -> Text:
    text = Text(f"{utc(entry.at)}  ").append(entry.verb, "bold").append(f"  {entry.target}")
    return add_facts(text, _act_facts(entry, creators)).append("\n")


def _act_facts(entry: AuditEntry, creators: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield "actor", entry.actor
    if entry.actor in creators:
        yield "link from", creators[entry.actor]
    if entry.company_id is not None:
        yield "company", str(entry.company_id)
    if entry.reason is not None:
        yield "reason", entry.reason
    for name, values in (("before", entry.before), ("after", entry.after)):
        if values:
            yield name, ", ".join(f"{field}={_plain(value)}" for field, value in values.items())
    if entry.trace_id is not None:
        yield "trace id", entry.trace_id


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return f"({', '.join(f'{name} {_plain(each)}' for name, each in sorted(value.items()))})"
    return value if isinstance(value, str) else json.dumps(value)


def audit_as_json(entries: Sequence[AuditEntry], creators: Mapping[str, str], *, has_more: bool) -> dict[str, Any]:
    """List the entries. `before` is the option that lists the next ones, or null at the end."""
    return {
        "entries": [
            as_json(
                id=each.id,
                at=each.at,
                actor=each.actor,
                link_created_by=creators.get(each.actor),
                verb=each.verb,
                target=each.target,
                company_id=each.company_id,
                reason=each.reason,
                before=dict(each.before),
                after=dict(each.after),
                trace_id=each.trace_id,
            )
            for each in entries
        ],
        "before": entries[-1].id if has_more else None,
    }
