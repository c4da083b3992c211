"""Lists over HTTP with more items than are counted."""

from typing import Any

from scheduler.domain.pagination import COUNTED_UP_TO
from tests.api_shim.answers import data, pagination
from tests.api_shim.intake import Intake
from tests.conftest import NOON
from tests.support.big_tables import add_candidates


def page_of(intake: Intake, page: int, **asked: Any) -> tuple[int, dict[str, Any]]:
    """Return the number of items of a page, and its `pagination`."""
    content = data(intake.get("/candidates", page=page, limit=100, **asked))
    return len(content["items"]), content["pagination"]


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
