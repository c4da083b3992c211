"""docs/operations.md contains every alarm, and its commands exist."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import typer

from command_line import main as cli
from command_line.status import status_page
from command_line.terminal import system_line, terminal
from scheduler.carriers import twilio_calls
from scheduler.carriers.twilio_codes import CODES, OF_A_CALL_ONLY, OF_THE_NUMBER
from scheduler.domain.alarm import KINDS, MEANINGS, anchor_of, meaning_of
from scheduler.lifecycle import breaker
from scheduler.lifecycle.backoffs import Backoff, Scope
from scheduler.lifecycle.breaker import Breaker
from scheduler.use_cases.operations.counts import Carrier, Status, Waiting
from tests.architecture.sources import PRODUCT
from tests.docs.pages import DOCS, anchor, blocks, read, section
from tests.support.compose import ROOT, procfile, variables_of_compose

TEXT = read("docs/operations.md")

OF_THE_CARRIER = breaker.OF_ALL_CALLS | breaker.BREAKS_OFF | {"CREATED_WITHOUT_A_NAME", "HTTP_…"}
"""Causes that open the breaker. The alarm of each begins with CARRIER_."""
OF_ONE_ORDER = (
    {meaning.consequence.value for meaning in CODES.values()}
    - breaker.OF_ALL_CALLS
    - breaker.PERMISSIONS
    - {each.value for each in OF_THE_NUMBER | OF_A_CALL_ONLY}
)


def raised(path: Path) -> Iterator[str]:
    """Yield the source text of each alarm that a module raises."""
    for node in ast.walk(ast.parse(read(path))):
        if not isinstance(node, ast.Call):
            continue
        names = {keyword.arg: keyword.value for keyword in node.keywords}
        value = names.get("alarm") or (names.get("cause") if ast.unparse(node.func) == "Alarm" else None)
        if value is not None:
            yield ast.unparse(value)


def alarms() -> set[str]:
    """List every alarm that the product can raise."""
    written = {each for path in PRODUCT for each in raised(path)}
    plain = {ast.literal_eval(each) for each in written if each.startswith("'")}
    spread = {
        "f'CARRIER_{judged.cause}'": {f"CARRIER_{cause}" for cause in OF_THE_CARRIER},
        "answer.cause": OF_ONE_ORDER,
        "cause": {"NEWS_FOR_A_CALL_THAT_WAS_NOT_PLACED"},
        "alarm.cause": set(),  # what Alarm( says
        "alarm": set(),  # what CallerReputation._raise( says
    }
    assert written - {repr(each) for each in plain} == set(spread), "an alarm of a new kind: name its values here"
    return plain.union(*spread.values())


def test_alarms_and_headings_match() -> None:
    headings = re.findall(r"^### (.*)$", section(TEXT, "Alarms"), re.MULTILINE)
    assert {alarm for heading in headings for alarm in heading.split(" · ")} == alarms()


def test_every_alarm_has_a_meaning_and_a_section() -> None:
    found = {each.replace("…", "503"): each for each in alarms()}
    assert set(MEANINGS) == {kind for kind, each in found.items() if kind == each}
    headings = re.findall(r"^### (.*)$", section(TEXT, "Alarms"), re.MULTILINE)
    for kind, each in found.items():
        [heading] = [heading for heading in headings if each in heading.split(" · ")]
        assert anchor_of(kind) == anchor(heading)
        assert re.fullmatch(r"[A-Z].+\.", meaning_of(kind)), kind
    assert (anchor_of("NEW_KIND"), MEANINGS.get("NEW_KIND")) == ("alarms", None)
    assert "another version" in meaning_of("NEW_KIND")


def test_every_alarm_of_a_fixed_kind_is_counted() -> None:
    only_in_the_log = {"OUT_OF_MEMORY", "LOOP_STUCK"}
    assert set(KINDS) == {each for each in alarms() - only_in_the_log if not each.endswith("…")}
    assert list(KINDS) == sorted(set(KINDS))


def test_every_alarm_states_whether_to_page() -> None:
    for alarm in re.split(r"^### ", section(TEXT, "Alarms"), flags=re.MULTILINE)[1:]:
        assert re.match(r".*\nPage: (yes|no)\b", alarm), alarm


def test_sample_of_status_is_real_output(capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime(2026, 4, 2, 7, tzinfo=UTC)
    carrier = Carrier(pause_reason=None, down_until=None, down_cause=None, on_trial=False, in_progress=4, max_calls=50)
    backoff = Backoff(
        scope=Scope(country="BG"),
        breaker=Breaker(failures=4, down_until=now + timedelta(minutes=1), cause="COUNTRY_REFUSED"),
    )
    runs = Waiting(
        company_id=UUID("0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55"),
        pause_reason=None,
        waiting=120,
        next_due_at=now + timedelta(seconds=150),
        due=9,
        late=timedelta(seconds=64),
        for_commands=0,
        for_numbers=2,
        for_places=7,
        in_progress=4,
        concurrent_calls=10,
        asked_for=1,
        undecided=0,
        unknown=1,
        cause_lost=0,
    )
    paused = replace(
        runs,
        company_id=UUID("7c2a4b1d-6e0f-4f4e-8d3a-2b9c5e1f0a22"),
        pause_reason="they asked for silence until Monday",
        next_due_at=None,
        late=None,
        in_progress=0,
        asked_for=0,
        unknown=0,
    )
    terminal().print(system_line("the system of DATABASE_WORKER_URL, database duecall at postgres:5432"))
    terminal().print(status_page(Status(carriers=[carrier], backoffs=[backoff], companies=[runs, paused]), (), now))
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    assert f"```text\n{printed}\n```" in TEXT


def test_causes_of_the_carrier_are_documented() -> None:
    source = read("scheduler/carriers/twilio_calls.py")
    unknown = set(re.findall(r'AnswerUnknown\(cause=f?"([^"]+)"', source))
    assert {cause.replace("{status}", "…") for cause in unknown} <= OF_THE_CARRIER
    never = set(re.findall(r'NeverTaken\(cause="([^"]+)"', source))
    # A call that we did not send says nothing about the carrier, and raises no alarm.
    assert never - {"NOT_SENT"} <= OF_THE_CARRIER
    assert set(twilio_calls._NOT_TAKEN_STATUSES.values()) <= OF_THE_CARRIER
    decisions = read("scheduler/lifecycle/decisions.py")
    assert re.findall(r'^ +cause = "([A-Z_]+)"$', decisions, re.MULTILINE) == ["NEWS_FOR_A_CALL_THAT_WAS_NOT_PLACED"]


def commands() -> set[str]:
    """List the commands of `duecall`, those of groups with their group."""

    def words(group: typer.Typer, before: str = "") -> Iterator[str]:
        for each in group.registered_commands:
            assert each.callback is not None
            yield before + (each.name or each.callback.__name__.replace("_", "-"))
        for inner in group.registered_groups:
            assert inner.typer_instance is not None
            yield from words(inner.typer_instance, f"{before}{inner.name} ")

    return set(words(cli.app))


def test_table_of_commands_is_complete() -> None:
    rows = re.findall(r"^\| (`.*?) \| ", section(TEXT, "Commands"), re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert sorted(listed) == sorted(commands())


def test_operations_page_names_existing_commands() -> None:
    said = {line.strip() for line in re.findall(r"duecall ((?:[a-z]+ ?){1,2})", "\n".join(_code()))}
    known = commands()
    assert len(said) > 8
    assert [line for line in said if line not in known and line.split()[0] not in known] == []


def _code() -> Iterator[str]:
    yield from re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    yield from re.findall(r"`([^`\n]+)`", TEXT)


def test_operations_page_contains_no_statements() -> None:
    """A command checks its input, locks what it changes and is audited. A statement that a person pastes does not."""
    assert "```sql" not in TEXT
    assert re.findall(r"\b(?:SELECT|UPDATE|DELETE|INSERT)\b (?!/)[^`\n]*", "\n".join(_code())) == []


def test_every_process_is_named_wherever_all_are_replaced() -> None:
    deploying = blocks(section(TEXT, "Deploying"))[0]
    replaced = set(re.findall(r"[a-z]+", re.sub(r"--\S+|\$each", "", deploying)))
    assert set(procfile()) <= replaced
    for name in ("Rotating secrets", "After a restore or a failover"):
        for command in re.findall(r"docker compose (?:up|stop) .*settle.*", section(TEXT, name)):
            assert set(procfile()) <= set(command.split()), name


def test_every_secret_of_compose_has_its_rotation() -> None:
    text = section(TEXT, "Rotating secrets")
    secrets = [name for name in variables_of_compose() if re.search("PASSWORD|KEY|SECRET|TOKEN|AUTH|PEPPER", name)]
    assert len(secrets) > 10
    assert [name for name in secrets if f"`{name}`" not in text and f"`{name}=" not in text] == []


def test_no_documented_command_starts_what_it_depends_on() -> None:
    """Without --no-deps, `run` migrates, and restarts servers whose values in .env have changed."""
    pages = [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "docker-compose.yml"]
    runs = [run for page in pages for run in re.findall(r"docker compose run [^`]{0,40}", read(page))]
    assert len(runs) > 5
    assert [run for run in runs if "--no-deps" not in run and run != "docker compose run "] == []
