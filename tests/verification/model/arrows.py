"""Arrows of the models, read from their text, for a comparison with the state machine's table."""

import re
from pathlib import Path
from typing import NamedTuple

DIAL = Path(__file__).parent / "dial.pml"
BATCH = DIAL.with_name("batch.pml")
CONVERSATION = DIAL.with_name("conversation.pml")
_INLINE_OR_ARROW = re.compile(r"^inline (\w+)\(|TAKES\(a, ([A-Z]\w+), ([A-Z]\w+), ([A-Z]\w+)\)", re.MULTILINE)
_SITUATION = re.compile(r"^inline (\w+)\(\) \{ skip \}$", re.MULTILINE)
_SWITCH = re.compile(r"^#ifn?def (\w+)$", re.MULTILINE)
SIZES = {
    *("CLAIMS", "DEATHS", "COMMANDS", "INTERVIEWS", "ATTEMPTS", "FAULTS", "CANCELS", "BLOCKS"),
    *("OPT_OUTS", "TECHNICALS", "OTHERS", "LATE", "INBOX"),
}
ASKS_WHETHER_ALL_END = "LIVENESS"


class ModelArrow(NamedTuple):
    event: str
    source: str | None
    target: str
    reason: str | None


def arrows(model: Path = DIAL) -> set[ModelArrow]:
    found, event = set(), ""
    for match in _INLINE_OR_ARROW.finditer(model.read_text(encoding="utf-8")):
        if match[1]:
            event = match[1]
        else:
            source, target, reason = match[2], match[3], match[4]
            found.add(
                ModelArrow(
                    event=event,
                    source=None if source == "NONE" else source,
                    target=target,
                    reason=None if reason == "NO_REASON" else reason,
                )
            )
    return found


def words(kind: str, model: Path = DIAL) -> set[str]:
    """List the model's names of one kind: `state`, `phase` or `reason`."""
    [names] = re.findall(rf"^mtype:{kind} = \{{(.*?)\}};", model.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return {name for name in re.findall(r"\w+", names) if not name.startswith("NO")}


def happenings(model: Path = DIAL) -> frozenset[str]:
    """List the model's events, and the situations that it marks with an inline that only skips."""
    events = {arrow.event for arrow in arrows(model)}
    return frozenset(events.union(_SITUATION.findall(model.read_text(encoding="utf-8"))))


def switches(model: Path = DIAL) -> set[str]:
    """List the names of the switches that break a rule."""
    return set(_SWITCH.findall(model.read_text(encoding="utf-8"))) - SIZES - {ASKS_WHETHER_ALL_END}


def with_its_events_told(model: Path = DIAL) -> str:
    """Build a model with the same states whose verifier prints `happens: NAME` at the first of each `happenings`."""
    text = model.read_text(encoding="utf-8")
    for place, name in enumerate(sorted(happenings(model))):
        head = re.compile(rf"^(inline {name}\([^)]*\) \{{)", re.MULTILINE)
        text, times = head.subn(rf'\1 c_code {{ happens({place}, "{name}"); }};', text)
        assert times == 1
    return _PRINTER + text


_PRINTER = """c_decl {
static void happens(int place, const char *name) {
  static unsigned long printed;
  if (!(printed & (1ul << place))) { printed |= 1ul << place; printf("happens: %s\\n", name); }
}
}
"""
