"""The demo: six sample calls on private servers and a simulated carrier, shown live and held against what must be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
from rich.console import Console
from rich.live import Live
from rich.table import Table

from scheduler.clock import monotonic
from scheduler.system import Running, System

STARTS_AT = "2026-04-02T17:30+10:30"
"""07:00 UTC on a Thursday: late afternoon in Adelaide, morning in Europe, 3 a.m. in New York."""

VARIABLES = {
    # Shorter than in production, so that nobody waits long for a carrier that says nothing; the same order.
    "CARRIER_CONNECT_TIMEOUT_S": "1",
    "CARRIER_TOTAL_TIMEOUT_S": "3",
    "DIAL_LEASE_S": "6",
    "SETTLE_S": "30",
    "SWEEP_S": "1",
    "RING_TIMEOUT_S": "10",
}

CARRIERS: dict[str, dict[str, Any] | None] = {
    "usual": None,
    "refuse": {"outcome": "answered", "fault": "refuse"},
}
"""How the simulated carrier behaves: by the sample calls' own plans, or one plan for all."""

_DUE_IN = timedelta(seconds=6)
_ENDS_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.3
_WIDTH = 124
"""Of the table where there is no terminal to fit into."""


@dataclass(frozen=True, kw_only=True)
class SampleCall:
    """One interview of the demo: whom, when, and how it must end."""

    who: str
    number: str
    asked: Callable[[datetime], str | None]
    """The text of scheduledAt, from the instant at which it is sent."""
    expected: str
    plan: Mapping[str, Any] = field(default_factory=dict)
    """What the simulated carrier shall do with it."""


def _in_adelaide(now: datetime) -> str:
    return _soon(now).astimezone(_offset("+10:30")).isoformat(timespec="seconds")


def _as_instant(now: datetime) -> str:
    return _soon(now).isoformat(timespec="seconds").replace("+00:00", "Z")


def _soon(now: datetime) -> datetime:
    return (now + _DUE_IN).replace(microsecond=0)


def _offset(text: str) -> Any:  # noqa: ANN401 - a tzinfo, which the standard library does not export by a name of its own
    return datetime.fromisoformat(f"2000-01-01T00:00{text}").tzinfo


_TALK = {"outcome": "answered", "ring_s": 1.5, "talk_s": 3}

CALLS = (
    SampleCall(
        who="Adelaide, by its offset",
        number="+61872001234",
        asked=_in_adelaide,
        expected="COMPLETED ANSWERED",
        plan=_TALK,
    ),
    SampleCall(
        who="Slovak mobile, by an instant (Z)",
        number="+421915123456",
        asked=_as_instant,
        expected="COMPLETED ANSWERED",
        plan=_TALK,
    ),
    SampleCall(
        who="US landline, 08:00 without an offset",
        number="+12015550123",
        asked=lambda _: "2026-04-02T08:00:00",
        expected="PENDING until 08:00 America/New_York",
    ),
    SampleCall(
        who="Slovak landline, at half past ten in the evening",
        number="+421220902345",
        asked=lambda _: "2026-04-02T22:30:00+02:00",
        expected="REFUSED OUTSIDE_CALL_TIME_INTERVAL",
    ),
    SampleCall(
        who="Berlin, nobody answers",
        number="+4930123456",
        asked=lambda _: None,
        expected="FAILED NO_ANSWER",
        plan={"outcome": "no_answer", "ring_s": 3},
    ),
    SampleCall(
        who="Warsaw, the carrier's answer is lost",
        number="+48221234567",
        asked=lambda _: None,
        expected="COMPLETED ANSWERED",
        plan={
            "outcome": "answered",
            "fault": "accept_and_silence",
            "callbacks": "none",
            "ring_s": 0.5,
            "talk_s": 0.5,
        },
    ),
)


@dataclass
class _Row:
    """What is known of one sample call."""

    call: SampleCall
    asked: str | None = None
    interview_id: str | None = None
    refusal: dict[str, Any] | None = None
    attempt: dict[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> str:
        """How it stands, in the words of `SampleCall.expected`."""
        if self.refusal is not None:
            return f"REFUSED {self.refusal['code']}"
        if not self.attempt:
            return "NOT SENT YET"
        if self.attempt["status"] == "PENDING":
            schedule = self.attempt["schedule"]
            return f"PENDING until {schedule['localTime'][11:16]} {schedule['timezone']}"
        return f"{self.attempt['status']} {self.attempt['reasonCode'] or ''}".strip()

    @property
    def is_as_expected(self) -> bool:
        return self.ended == self.call.expected

    @property
    def is_over(self) -> bool:
        """Nothing more will become of it."""
        return self.refusal is not None or self.attempt.get("status") in {"COMPLETED", "FAILED", "CANCELLED"}


def run(system: System, *, carrier: str, stopped: Callable[[], bool]) -> bool:
    """Send the sample calls, show them until all stand as expected or a minute is over. True: all do."""
    assert system.running is not None
    http = _Http(system.running)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    rows = [_Row(call=call) for call in CALLS]
    http.plan(rows, CARRIERS[carrier])
    for row in rows:
        http.ask(row)
    deadline = monotonic() + _ENDS_WITHIN_S
    looked = 0.0
    with Live(_table(rows), console=console, refresh_per_second=4) as live:

        def over() -> bool:
            nonlocal looked
            if monotonic() - looked >= _LOOK_EVERY_S:
                looked = monotonic()
                for row in rows:
                    http.look(row)
                live.update(_table(rows))
                system.look()
            return stopped() or monotonic() > deadline or all(row.is_as_expected or row.is_over for row in rows)

        system.supervisor.run(over)
        rung_twice = http.numbers_rung_twice()
        live.update(_table(rows, over=True))
    console.print()
    for row in rows:
        if row.refusal is not None:
            console.print(f"{row.call.who}: {row.refusal['message']}", highlight=False)
    if rung_twice:
        console.print(f"rung twice: {rung_twice} numbers", style="red")
    well = sum(row.is_as_expected for row in rows)
    as_expected = well == len(rows) and not rung_twice
    console.print(
        f"{well} of {len(rows)} calls stand as expected."
        + ("" if as_expected else f" The logs in {system.log_of('api').parent} say more."),
        style="green" if as_expected else "red",
        highlight=False,
    )
    return as_expected


def print_what_to_try(running: Running) -> None:
    """Three commands that a newcomer can paste."""
    key = f"-H 'Authorization: Bearer {running.companyKey}'"
    body = (
        '{"agentId": "' + running.agentId + '", "candidate": {"firstName": "Ada", "lastName": "Lovelace",'
        ' "phoneNumber": "+421915654321", "gdprExpiryDate": "2030-01-01"}}'
    )
    console = Console()
    console.print("\nTry it: a call of your own, what became of it, and who was rung:\n", highlight=False)
    for line in (
        f"curl -s {key} -H 'Content-Type: application/json' {running.apiUrl}/interviews -d '{body}'",
        f"curl -s {key} {running.apiUrl}/interviews/ID",
        f"curl -s {running.simulatorUrl}/ledger",
    ):
        console.print(f"  {line}\n", markup=False, highlight=False, soft_wrap=True)


class _Http:
    """The API and the simulator, as a client of each sees it."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {running.companyKey}"

    def plan(self, rows: list[_Row], for_all: dict[str, Any] | None) -> None:
        for row in rows:
            if plan := for_all or dict(row.call.plan):
                self._session.post(
                    f"{self._running.simulatorUrl}/plans", json={"to": row.call.number, **plan}, timeout=5
                ).raise_for_status()

    def ask(self, row: _Row) -> None:
        """POST the interview. A 202 is followed to its end by `look`."""
        row.asked = row.call.asked(self._now())
        body: dict[str, Any] = {
            "agentId": self._running.agentId,
            "candidate": {
                "firstName": "Sample",
                "lastName": "Candidate",
                "phoneNumber": row.call.number,
                "gdprExpiryDate": "2030-01-01",
            },
        }
        if row.asked is not None:
            body["scheduledAt"] = row.asked
        answer = self._session.post(f"{self._running.apiUrl}/interviews", json=body, timeout=35).json()
        if answer["success"]:
            row.interview_id = answer["data"]["id"]
        else:
            row.refusal = answer["error"]

    def look(self, row: _Row) -> None:
        if row.interview_id is None:
            return
        try:
            answer = self._session.get(f"{self._running.apiUrl}/interviews/{row.interview_id}", timeout=5).json()
        except requests.RequestException:
            return  # the API is being started again; the next look sees it
        if answer["success"]:
            row.attempt = answer["data"]["callAttempts"][-1]

    def numbers_rung_twice(self) -> int:
        """By the simulated carrier's ledger, which nothing here writes."""
        rings = self._session.get(f"{self._running.simulatorUrl}/ledger", timeout=5).json()["rings"]
        rung = [ring["to"] for ring in rings if ring["rang_at"]]
        return len({number for number in rung if rung.count(number) > 1})

    def _now(self) -> datetime:
        """The system's clock, from what the API says of its own answers."""
        stamp: str = self._session.get(f"{self._running.apiUrl}/nothing", timeout=5).json()["timestamp"]
        return datetime.fromisoformat(stamp).astimezone(UTC)


_SOURCES = {
    "OFFSET": "the offset in the request",
    "ZONE": "the zone in the request",
    "CANDIDATE": "the candidate's own",
    "PHONE_NUMBER": "the phone number's",
    "COMPANY": "the company's",
}
_STYLES = {
    "COMPLETED": "green",
    "FAILED": "yellow",
    "IN_PROGRESS": "cyan",
    "PENDING": "blue",
    "REFUSED": "magenta",
}


def _table(rows: list[_Row], *, over: bool = False) -> Table:
    table = Table(title="Duecall: six calls, each on its own clock", title_justify="left", show_lines=True)
    for heading, narrowest in (
        ("call, and when it was asked for", 26),
        ("whose clock", 17),
        ("due there", 10),
        ("stands", 20),
        ("", None),
    ):
        table.add_column(heading, overflow="fold", min_width=narrowest)
    for row in rows:
        mark = "[green]as expected[/]" if row.is_as_expected else (f"[red]not: {row.call.expected}[/]" if over else "")
        table.add_row(
            f"{row.call.who}\n[dim]{row.asked or 'as soon as allowed'}[/]", *_clock_and_time(row), _standing(row), mark
        )
    return table


def _clock_and_time(row: _Row) -> tuple[str, str]:
    """Whose clock decided, and what it shows when the call is due; of a refused one, what it would have shown."""
    decided: dict[str, Any] = row.attempt.get("schedule") or (row.refusal or {}).get("details") or {}
    zone = decided.get("timezone") or decided.get("utcOffset") or ""
    source = _SOURCES.get(decided.get("timezoneSource", ""), "")
    local = (decided.get("localTime") or "")[:19].replace("T", "\n")
    return f"{zone}\n[dim]{source}[/]", local


def _standing(row: _Row) -> str:
    """Its state, and what it waits for or how it ended."""
    state, _, rest = row.ended.partition(" ")
    if row.refusal is not None:
        rest = f"{rest.lower().replace('_', ' ')}\nnext allowed {row.refusal['details'].get('nextAllowedAt')}"
    elif row.attempt and state in {"PENDING", "IN_PROGRESS"}:
        rest = f"waits for {row.attempt['waitingFor']}" if state == "IN_PROGRESS" else f"waits {rest}"
    return f"[{_STYLES.get(state, 'white')}]{state}[/]\n{rest}"
