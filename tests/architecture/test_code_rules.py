"""Rules for the code: some capabilities have exactly one module, and the module overview is correct."""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import scheduler
from scheduler.logs import ALLOWED
from standalone.supervisor import commands
from tests.architecture.sources import PRODUCT, ROOMS, ROOT, module, name_of, nodes
from tests.support.compose import as_run_by_default, procfile

MOST_NAMES = 45


@cache
def _calls(path: Path) -> frozenset[str]:
    """Collect every dotted name that a module calls or reads, as written."""
    return frozenset(ast.unparse(node) for node in nodes(path) if isinstance(node, ast.Attribute | ast.Name))


@cache
def _imports(path: Path) -> frozenset[str]:
    """Collect every module that a module imports, and every name from it."""
    imported = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(imported)


STATEMENTS_BUILT_ONCE = 56
CLOCK = r"(datetime|date)\.(now|utcnow|today)|time\.(time|time_ns|monotonic|monotonic_ns|perf_counter)"
POWERS = {
    "reading the clock": (CLOCK, {"scheduler/clock.py"}),
    # A forked process replaces its environment by the requested one, before any setting is read.
    "reading the environment": (
        r"os\.(environ|getenv)",
        {"scheduler/settings.py", "standalone/forked_program.py"},
    ),
    "declaring a task": (r"app\.task|shared_task", {"workers/tasks.py"}),
    "making a Celery application": ("Celery", {"workers/app.py", "workers/hints.py"}),
    "mapping errors to HTTP": ("HTTPException", {"api_shim/errors.py", "standalone/simulator/app.py"}),
    "opening a transaction": (
        "create_engine",
        {"scheduler/persistence/sessions.py"},
    ),
    "a pool of connections, or one for a migration": (
        "make_engine",
        {
            "scheduler/persistence/sessions.py",
            "scheduler/persistence/database.py",
            "scheduler/persistence/schema.py",
        },
    ),
    "a connection of one's own, with a deadline: to listen, and to recognise a pooler": (
        r"BoundedConnection\.connect",
        {"scheduler/persistence/sessions.py", "workers/clock.py"},
    ),
    "a connection without a deadline for statements, to see whether a server is up": (
        r"psycopg\.connect",
        {"standalone/valkey_and_postgres.py"},
    ),
    "the async client": (
        r"aiohttp\.ClientSession",
        {
            "scheduler/carriers/twilio_calls.py",
            "standalone/simulator/callbacks.py",
            "console/identity_provider.py",
        },
    ),
    # Rows get theirs from `scheduler.ids`. Those of traces and of the simulated carrier are in no row.
    "making an id that is not in the order of time": (
        r"(uuid\.)?uuid\d",
        {
            "api_shim/middleware.py",
            "standalone/simulator/call_lives.py",
            "standalone/simulator/callbacks.py",
            "standalone/simulator/calls.py",
        },
    ),
    "choosing time zone data": (r"(zoneinfo\.)?reset_tzpath", {"scheduler/timing/__init__.py"}),
}


@pytest.mark.parametrize(("power", "homes"), POWERS.values(), ids=POWERS)
def test_a_power_has_its_home_and_no_other(power: str, homes: set[str]) -> None:
    found = {name_of(path) for path in PRODUCT if any(re.fullmatch(power, call) for call in _calls(path))}
    assert found <= homes
    assert found, "it is unused, so the rule checks nothing"


@pytest.mark.parametrize(
    ("package", "home"),
    [
        pytest.param("sqlalchemy", ("scheduler/persistence/", "console/stores/"), id="writing SQL"),
        pytest.param("phonenumbers", "scheduler/timing/callee_zones.py", id="asking phonenumbers"),
        pytest.param("twilio", "scheduler/carriers/", id="a vendor's words"),
        pytest.param("standardwebhooks", "scheduler/webhooks/sending.py", id="signing posts"),
        pytest.param("cryptography", "scheduler/webhooks/sending.py", id="encrypting secrets"),
        pytest.param("requests_hardened", "scheduler/webhooks/sender.py", id="posting to URLs of partners"),
        pytest.param("authlib", ("console/oidc.py", "console/identity_provider.py"), id="speaking OpenID Connect"),
        pytest.param("joserfc", ("console/oidc.py", "console/identity_provider.py"), id="verifying ID tokens"),
        pytest.param("smtplib", "scheduler/mail.py", id="speaking SMTP"),
        pytest.param("email_validator", "scheduler/rules/owners.py", id="judging an address"),
    ],
)
def test_a_package_is_used_in_one_place(package: str, home: str | tuple[str, ...]) -> None:
    users = {name_of(path) for path in PRODUCT if any(name.split(".")[0] == package for name in _imports(path))}
    assert users
    assert all(user.startswith(home) for user in users), users


SPEAKERS = {
    "requests": {
        "standalone/api_client.py",
        "scheduler/carriers/twilio_queries.py",
        "scheduler/carriers/voice_server.py",
        "standalone/demo/client.py",
        "scheduler/exchange.py",
        "standalone/system.py",
        "scheduler/webhooks/sender.py",
    },
    "urllib3": {"scheduler/exchange.py", "scheduler/webhooks/sender.py"},
    "aiohttp": {
        "scheduler/carriers/twilio_calls.py",
        "standalone/simulator/callbacks.py",
        "console/identity_provider.py",
    },
    "socket": {
        "standalone/fork_server.py",  # a pair of sockets within this machine, as in the next module
        "standalone/forked_program.py",
        "standalone/private_server.py",
        "standalone/valkey_and_postgres.py",
        # Local sockets between the supervisor and its fork server.
        "scheduler/mail.py",
        "scheduler/carriers/twilio_calls.py",
        "standalone/simulator/faults.py",
        "scheduler/exchange.py",  # it cuts a connection at the deadline
        # Only types of errors.
        "scheduler/process.py",
        "scheduler/webhooks/sender.py",
    },
    "urllib.request": set(),
    # In a dial worker, which needs no other client of HTTP than that of its calls.
    "http.client": {"scheduler/carriers/twilio.py"},
    "httpx": set(),
}


@pytest.mark.parametrize("package", list(SPEAKERS))
def test_network_packages_are_used_only_where_listed(package: str) -> None:
    """Only these modules use the network, with URLs from the settings, and the sender with those of endpoints.

    A URL in a job is stored, never fetched.
    """
    found = {name_of(path) for path in PRODUCT if any(f"{each}.".startswith(f"{package}.") for each in _imports(path))}
    assert found == SPEAKERS[package]


def _texts(path: Path) -> Iterator[str]:
    docstrings = {
        id(node.body[0].value)
        for node in nodes(path)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_sql_takes_the_time_as_a_parameter() -> None:
    its_own = re.compile(r"\bnow\(\)|current_timestamp|localtimestamp|statement_timestamp", re.IGNORECASE)
    assert not [(name_of(path), text) for path in PRODUCT for text in _texts(path) if its_own.search(text)]


def test_new_statements_are_constant_texts() -> None:
    """Decision 60. Lower the number when a statement has become a text."""
    built_once = [
        node
        for path in PRODUCT
        for node in nodes(path)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Fixed"
    ]
    assert len(built_once) <= STATEMENTS_BUILT_ONCE, "write a new statement as text, and execute it by the driver"


def test_only_two_statements_compare_the_databases_clock() -> None:
    saying = [name_of(path) for path in PRODUCT for text in _texts(path) if "clock_timestamp()" in text]
    assert saying == ["scheduler/persistence/database.py", "scheduler/persistence/last_looks.py"]


def _instants_of_own(path: Path) -> Iterator[str]:
    """Yield the functions that open a writing transaction and read the clock themselves."""
    for function in nodes(path):
        if isinstance(function, ast.FunctionDef):
            called = {ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
            if "self._database.transaction" in called and called & {"self._now", "self.now"}:
                yield f"{name_of(path)}:{function.name}"


def test_instants_in_a_transaction_are_those_of_its_clock() -> None:
    use_cases = [path for path in PRODUCT if {"use_cases", "console"} & set(path.parts)]
    assert [found for path in use_cases for found in _instants_of_own(path)] == []


def test_messages_carry_no_time_and_broker_retries_nothing() -> None:
    forbidden = {"countdown", "eta", "task_always_eager", "expires"}
    for path in PRODUCT:
        for node in nodes(path):
            if isinstance(node, ast.keyword) and node.arg in forbidden and path.parts[-2] == "workers":
                pytest.fail(f"{name_of(path)} says {node.arg}=")
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".retry", ".apply_async", ".delay")):
                pytest.fail(f"{name_of(path)} calls {ast.unparse(node.func)}")


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_a_module_says_what_it_is_about(path: Path) -> None:
    if not module(path).body:
        return  # a package without its own overview
    first = (ast.get_docstring(module(path)) or "").splitlines()
    assert first
    assert first[0].endswith((".", "?", ":")), f"{name_of(path)}: {first[0]!r} is not a sentence"


def _said_in_logs(path: Path) -> Iterator[str]:
    """Yield every field that a module passes to its log."""
    for node in nodes(path):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("_log."):
            yield from (keyword.arg for keyword in node.keywords if keyword.arg)


def test_log_fields_are_on_the_allowed_list() -> None:
    said = {(field, name_of(path)) for path in PRODUCT for field in _said_in_logs(path)}
    found = {field for field, _ in said}
    assert found >= {"alarm", "until", "attempt_id"}, "no field was found, so the rule checks nothing"
    # The first is logged as `error`, with kind and place. The second tells that the alarm has its row already.
    own = {"exc_info", "is_stored"}
    assert not [each for each in said if each[0] not in ALLOWED | own]


def _names_of_our_own(path: Path) -> int:
    """Count the names that a module imports from our packages when it is imported."""
    imports = (each for each in module(path).body if isinstance(each, ast.ImportFrom))
    return sum(len(each.names) for each in imports if (each.module or "").split(".")[0] in ROOMS)


def test_no_file_imports_more_than_45_names_of_our_own() -> None:
    """To change such a file, one has to know too much."""
    assert {name_of(path): count for path in PRODUCT if (count := _names_of_our_own(path)) > MOST_NAMES} == {}


def test_the_seven_stops_are_where_the_map_says() -> None:
    stops = re.findall(r"^    (\w+) +(scheduler\.\S+) +(\w+)\.(\w+) ", scheduler.__doc__ or "", re.MULTILINE)
    assert [stop for stop, *_ in stops] == ["submit", "apply", "release", "dial", "hear", "settle", "explain"]
    for stop, place, kind, function in stops:
        assert place == f"scheduler.use_cases.{stop}"
        assert callable(getattr(getattr(importlib.import_module(place), kind), function))


MAPS = {
    path: re.findall(r"^(?: {4})?(\w+)  +\S", ast.get_docstring(module(path)) or "", re.MULTILINE)
    for path in PRODUCT
    if path.name == "__init__.py" and path.parent.name != "scheduler"
}
"""The modules that the docstring of a package lists."""


@pytest.mark.parametrize("path", [path for path, named in MAPS.items() if named], ids=name_of)
def test_the_map_of_a_package_names_its_modules(path: Path) -> None:
    present = {each.stem for each in path.parent.iterdir() if each.suffix == ".py" or (each / "__init__.py").exists()}
    assert set(MAPS[path]) == present - {"__init__"}


def test_the_procfile_runs_what_duecall_up_runs() -> None:
    ours = commands(api_port=8000, console_port=8001, flower_port=5555)
    lines = procfile()
    assert list(lines) == list(ours)
    for name, line in lines.items():
        assert [part.replace(f"{ROOT}/", "") for part in ours[name][1:]] == as_run_by_default(line)[1:], name


def test_nothing_names_an_index_host_or_a_machine() -> None:
    names = ("python" + "hosted", "pypi" + r"\.org", "registry" + r"\.npm", "/wo" + "rk/", "/ro" + "ot/")
    hosts = re.compile("|".join(names))
    kept = [*ROOT.glob("*"), *(ROOT / "docs").rglob("*"), *PRODUCT, *(ROOT / "tests").rglob("*.py")]
    found = [
        name_of(path)
        for path in kept
        if path.is_file()
        and path.name != ".git"  # in a worktree it is a file, and git's own
        and hosts.search(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found
