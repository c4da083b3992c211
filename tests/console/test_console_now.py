"""The page Now, the pause of everything, and changes that reach an open page."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from console import live
from scheduler.clock import machine_now
from scheduler.persistence.database import Database
from scheduler.persistence.schema import Logins
from scheduler.use_cases.shared.hints import QUEUES
from standalone.valkey_and_postgres import EmbeddedValkey
from tests.conftest import real_now, seed, wait_until
from tests.console.acts import figure, send, words
from tests.console.conftest import Console, settings_of_console
from tests.console.oidc import served
from tests.support.builders import Tenant, a_pending_attempt, a_placed_attempt

OK, SEE_OTHER, CONFLICT, UNPROCESSABLE, AWAY = 200, 303, 409, 422, 503
PAUSE, RESUME = "/acts/pause-everything", "/acts/resume-everything"


@pytest.fixture(autouse=True)
def _account(account: Callable[[], None]) -> None:
    account()


def test_now_shows_the_carrier_and_the_counts(console: Console, viewer: httpx.Client) -> None:
    page = viewer.get("/")
    assert "Takes calls" in page.text
    assert "<strong>0</strong> of 50" in page.text
    assert [figure(page, label) for label in ("Late", "Due", "In progress", "Unknown outcomes")] == [
        "none",
        "0",
        "0",
        "0",
    ]
    assert figure(page, "Clocks") == "agree"


def test_now_says_that_no_worker_is_alive(viewer: httpx.Client) -> None:
    page = viewer.get("/")
    assert figure(page, "Workers") == "0"
    assert f"no worker for {', '.join(sorted(set(QUEUES.values())))}" in page.text


def test_everything_is_paused_and_resumed(console: Console, operator: httpx.Client) -> None:
    assert send(operator, PAUSE, reason="the voice server is down").headers["location"] == "/"
    assert console.pauses.active() == ("the voice server is down", {})
    page = operator.get("/").text
    assert "<strong>All calls are paused.</strong> the voice server is down" in page
    assert RESUME in page
    assert send(operator, RESUME, reason="it answers").status_code == SEE_OTHER
    assert console.pauses.active() == (None, {})
    assert PAUSE in operator.get("/").text


def test_preview_counts_and_changes_nothing(console: Console, operator: httpx.Client, database: Database) -> None:
    seed(database, machine_now())
    page = operator.get(PAUSE)
    assert "All companies (1) are affected." in page.text
    assert "0 pending calls will wait until calls are resumed." in page.text
    assert "None of them is due now." in page.text
    assert "No call is in progress." in page.text
    assert console.pauses.active() == (None, {})


def test_previews_count_in_singular_and_plural(console: Console, operator: httpx.Client, tenant: Tenant) -> None:
    a_pending_attempt(tenant, due_at=real_now())
    a_placed_attempt(tenant)
    assert "1 pending call will wait until calls are resumed. 1 of them is due now. 1 call in progress continues." in (
        words(operator.get(PAUSE))
    )
    console.pauses.pause(None, "a try")
    resume = words(operator.get(RESUME))
    assert "1 call is due. It is placed at once if it is within calling hours, at the account's pace." in resume
    assert "No company is paused separately." in resume
    a_pending_attempt(tenant, due_at=real_now())
    console.pauses.pause(tenant.company_id, "another try")
    resume = words(operator.get(RESUME))
    assert "2 calls are due. Those within calling hours are placed at once, at the account's pace." in resume
    assert "1 company that is paused separately stays paused." in resume


def test_form_without_token_is_refused(console: Console, operator: httpx.Client) -> None:
    assert operator.post(PAUSE, data={"reason": "x"}).status_code == CONFLICT
    assert operator.post(PAUSE, content=b"\xff" * 10).status_code == UNPROCESSABLE
    assert console.pauses.active() == (None, {})


def test_reason_is_escaped(console: Console, operator: httpx.Client) -> None:
    send(operator, PAUSE, reason="<script>alert(1)</script>")
    for path in ("/", RESUME):
        page = operator.get(path).text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


# ---- live


@contextmanager
def events(client: httpx.Client) -> Iterator[Iterator[tuple[str, str]]]:
    """The events of an open page: name and data."""
    with client.stream("GET", "/live", timeout=60) as stream:
        assert stream.status_code == OK
        assert stream.headers["content-type"].startswith("text/event-stream")
        yield _events(stream.iter_lines())


def _events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    name, data = "", []
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data.append(line.removeprefix("data: "))
        elif not line and name:
            yield name, "\n".join(data)
            name, data = "", []


def test_open_page_gets_all_fragments_then_changes(console: Console, viewer: httpx.Client) -> None:
    with events(viewer) as stream:
        first = dict(next(stream) for _ in range(6))
        assert set(first) == {"banner", "now-acts", "now-carrier", "now-calls", "now-work", "now-system"}
        console.pauses.pause(None, "seen in another tab")
        changed = dict(next(stream) for _ in range(3))
    assert set(changed) == {"banner", "now-acts", "now-carrier"}, "an unchanged fragment was sent"
    assert "seen in another tab" in changed["banner"]
    assert "Paused" in changed["now-carrier"]


def test_fragments_equal_those_of_the_page(viewer: httpx.Client) -> None:
    page = re.sub(r"\s+", " ", viewer.get("/").text)
    with events(viewer) as stream:
        for name, html in (next(stream) for _ in range(6)):
            if name != "now-acts":  # a viewer has no acts
                assert re.sub(r"\s+", " ", html).strip() in page, name


def test_stream_ends_with_its_session(console: Console, viewer: httpx.Client, operator: httpx.Client) -> None:
    with events(viewer) as stream, events(operator) as other:
        for _ in range(6):
            next(stream)
            next(other)
        viewers = next(each for each in console.sessions.all() if each.role == "viewer")
        console.sessions.revoke(viewers.id)
        assert list(stream)[-1] == ("signed-out", "")
        console.pauses.pause(None, "still connected")
        assert any("still connected" in data for _, data in other)


def test_new_session_is_not_ended_by_an_older_poll(console: Console, viewer: httpx.Client) -> None:
    with events(viewer) as stream:
        for _ in range(6):
            next(stream)
        with console.signed_in() as late, events(late) as other:
            names = {next(other)[0] for _ in range(6)}
            console.pauses.pause(None, "still connected")
            names |= {next(other)[0]}
    assert "signed-out" not in names


def test_place_of_a_stream_is_taken_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    async def poll() -> live.Polled:
        raise AssertionError("no stream has begun")

    monkeypatch.setattr(live, "MOST_STREAMS", 2)
    streams = live.Live(poll=poll)
    with streams.place("link:1") as first, streams.place("link:2") as second, streams.place("link:3") as third:
        assert (first, second, third) == (True, True, False)
    with streams.place("link:3") as again:
        assert again


def test_operator_has_a_bounded_number_of_streams() -> None:
    async def poll() -> live.Polled:
        raise AssertionError("no stream has begun")

    streams = live.Live(poll=poll)
    with ExitStack() as open_pages:

        def is_free(actor: str) -> bool:
            return open_pages.enter_context(streams.place(actor))

        assert all(is_free("oidc:ada") for _ in range(live.MOST_OF_AN_OPERATOR))
        assert not is_free("oidc:ada")
        assert is_free("oidc:bob"), "one operator holds the places of others"
        assert live.MOST_OF_AN_OPERATOR < live.MOST_STREAMS
    with streams.place("oidc:ada") as again:
        assert again


def test_one_viewer_leaves_streams_for_others(viewer: httpx.Client, operator: httpx.Client) -> None:
    with ExitStack() as open_pages:
        pages = [open_pages.enter_context(events(viewer)) for _ in range(live.MOST_OF_AN_OPERATOR)]
        assert all(next(page) for page in pages)
        with viewer.stream("GET", "/live") as refused:
            assert refused.status_code == AWAY
            assert refused.read() == b"Too many pages of the console are open."
        assert "Takes calls" in viewer.get("/").text
        with events(operator) as other:
            assert next(other)


def test_closed_stream_frees_its_place(
    console: Console, viewer: httpx.Client, logins: Logins, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST_STREAMS", 2)
    with served(settings_of_console(logins, valkey.url, console.url)) as url, console.client() as client:
        client.base_url, client.cookies = httpx.URL(url), viewer.cookies

        def status() -> int:
            with client.stream("GET", "/live") as another:
                return another.status_code

        with events(client) as first:
            next(first)
            with events(client) as second:
                next(second)
                with client.stream("GET", "/live") as third:
                    assert third.status_code == AWAY
                    assert third.read() == b"Too many pages of the console are open."
                assert client.get("/").status_code == OK
            wait_until(lambda: status() == OK, says="the closed stream has freed its place")
            assert next(first)
