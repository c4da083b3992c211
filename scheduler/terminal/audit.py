"""The page of the audit, and its JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from scheduler.domain.audit import AuditEntry
from scheduler.terminal.json_text import as_json
from scheduler.terminal.text import utc


def audit_page(entries: Sequence[AuditEntry], creators: Mapping[str, str], *, has_more: bool) -> RenderableType:
    """Return each act with its actor, target, reason and change. `has_more`: older entries exist.

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
    for name, value in _facts(entry, creators):
        text.append(f"\n  {name:<13} ", "dim").append(value)
    return text.append("\n")


def _facts(entry: AuditEntry, creators: Mapping[str, str]) -> Iterator[tuple[str, str]]:
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
    """Return the entries. `before` is the option that lists the next ones, or null at the end."""
    return {
        "entries": [
            as_json(
                {
                    "id": each.id,
                    "at": each.at,
                    "actor": each.actor,
                    "link_created_by": creators.get(each.actor),
                    "verb": each.verb,
                    "target": each.target,
                    "company_id": each.company_id,
                    "reason": each.reason,
                    "before": dict(each.before),
                    "after": dict(each.after),
                    "trace_id": each.trace_id,
                }
            )
            for each in entries
        ],
        "before": entries[-1].id if has_more else None,
    }
