"""Lists over HTTP with more items than are counted, and counts for metrics that are made once for many requests."""

import re
from typing import Any

import pytest
from sqlalchemy import event

from api_shim.assembly import COUNTED_EVERY_S, AppContext
from scheduler.domain.resource import COUNTED_UP_TO
from tests.api_shim.answers import data, pagination
from tests.api_shim.intake import Intake
from tests.api_shim.shared_api import SharedApi
from tests.conftest import NOON
from tests.support.big_tables import add_candidates
from tests.support.builders import Tenant, a_pending_attempt


def page_of(intake: Intake, page: int, **asked: Any) -> tuple[int, dict[str, Any]]:
    """Read the number of items of a page, and its `pagination`."""
    content = data(intake.get("/candidates", page=page, limit=100, **asked))
    shown = content["pagination"]
    assert (shown.pop("nextCursor") is not None) == (shown["hasNextPage"] and bool(content["items"]))
    return len(content["items"]), shown


def estimate(total: int, page: int) -> dict[str, Any]:
    return {**pagination(total, page=page, limit=100), "totalIsEstimate": True}


def test_total_is_exact_up_to_the_maximum(intake: Intake, postgres_url: str) -> None:
    add_candidates(postgres_url, intake.seeded, NOON, COUNTED_UP_TO)
    for asked in ({}, {"status": "APPLIED"}, {"search": "example"}):
        assert page_of(intake, 1, **asked) == (100, pagination(COUNTED_UP_TO, limit=100)), asked
        assert page_of(intake, 100, **asked) == (100, pagination(COUNTED_UP_TO, page=100, limit=100)), asked
        assert page_of(intake, 101, **asked) == (0, pagination(COUNTED_UP_TO, page=101, limit=100)), asked


def test_larger_total_is_marked_and_grows_to_the_last_page(intake: Intake, postgres_url: str) -> None:
    total = COUNTED_UP_TO + 130
    add_candidates(postgres_url, intake.seeded, NOON, total)
    for asked in ({}, {"status": "APPLIED"}, {"search": "example"}):
        assert page_of(intake, 1, **asked) == (100, estimate(10_001, page=1)), asked
        assert page_of(intake, 100, **asked) == (100, estimate(10_001, page=100)), asked
        assert page_of(intake, 101, **asked) == (100, estimate(10_101, page=101)), asked
        assert page_of(intake, 102, **asked) == (30, pagination(total, page=102, limit=100)), asked
        assert page_of(intake, 103, **asked) == (0, estimate(10_001, page=103)), asked


@pytest.fixture
def app_context(premises: SharedApi, intake: Intake) -> AppContext:
    assert premises._served is not None
    return premises._served.app_context


def test_metrics_are_counted_once_for_many_requests(
    intake: Intake, tenant: Tenant, app_context: AppContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = 100.0
    monkeypatch.setattr(app_context.counted, "_ticks", lambda: at)
    company = f'{{company_id="{intake.seeded.company_id}"}}'
    statements: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if "attempts" in statement:  # the API itself stores its counts of requests every few seconds
            statements.append(statement)

    def due() -> tuple[int, int]:
        """Count the attempts that are due by the metrics, and the statements about attempts that this took."""
        statements.clear()
        [line] = re.findall(rf"duecall_attempts_due{re.escape(company)} (\d+)\.0", intake.client.get("/metrics").text)
        return int(line), len(statements)

    engine = app_context.use_cases.explain._database._engine
    event.listen(engine, "before_cursor_execute", note)
    a_pending_attempt(tenant)
    first, sent = due()
    a_pending_attempt(tenant)
    assert (first, due()) == (1, (1, 0))
    at += COUNTED_EVERY_S
    assert due() == (2, sent)
    event.remove(engine, "before_cursor_execute", note)
    assert sent > 0
