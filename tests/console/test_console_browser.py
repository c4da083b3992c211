"""The console in a real browser: by keyboard alone, without JavaScript, light and dark, and without WCAG violations."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from console.app import create_app
from scheduler.domain.principal import OperatorRole
from scheduler.persistence.schema import Logins
from scheduler.settings import Settings
from standalone.valkey_and_postgres import EmbeddedValkey
from tests.conftest import real_now
from tests.console.busy_installation import linked_pages, make_busy, one_per_route
from tests.console.conftest import Console, settings_of_console
from tests.console.oidc import served, with_provider
from tests.console.work import work_pages
from tests.support.builders import Tenant, a_pending_attempt, a_placed_attempt
from tests.support.identity_provider import an_identity_provider

CHROMIUM = Path("/usr/bin/chromium")
WCAG = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
    "resultTypes": ["violations"],
}
COLOURS = {
    "runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]},
    "resultTypes": ["violations"],
}
if os.environ.get("CI") != "true" and not CHROMIUM.exists():
    pytest.skip("chromium is not installed", allow_module_level=True)


SIGNED_IN = re.compile("/$")
"""The address after a sign-in."""
expect.set_options(timeout=30_000)  # the usual 5 s are little for a starved machine


@pytest.fixture(autouse=True)
def _account(account: Callable[[], None]) -> None:
    account()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def sign_in(page: Page, link: str) -> None:
    page.goto(link)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(SIGNED_IN)  # the next page would break off the sign-in


def violations(page: Page) -> list[tuple[str, str]]:
    return list(_places(Axe().run(page, options=WCAG).response["violations"]))


def _places(found: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    return ((each["id"], node["html"]) for each in found for node in each["nodes"])


def look(page: Page, name: str) -> None:
    """Check the page in light and dark, and keep its pictures. Dark differs in its colours alone."""
    assert violations(page) == [], name
    shoot(page, name, "light")
    page.emulate_media(color_scheme="dark")
    found = page.evaluate("options => axe.run(document, options)", COLOURS)["violations"]
    assert list(_places(found)) == [], f"{name}, dark"
    shoot(page, name, "dark")
    page.emulate_media(color_scheme="light")


def shoot(page: Page, name: str, scheme: str) -> None:
    """Keep a picture of the page, wide and narrow, where `make console-shots` asks for it."""
    folder = os.environ.get("DUECALL_SHOTS")
    if folder is None:
        return
    for width in (1280, 375):
        page.set_viewport_size({"width": width, "height": 800})
        file = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "now"
        page.screenshot(path=Path(folder) / f"{file}-{scheme}-{width}.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 720})


def test_pages_have_no_wcag_violations(console: Console, tenant: Tenant, browser: Browser) -> None:
    with browser.new_context(color_scheme="light") as context:
        page, errors = context.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(f"{console.url}/sign-in")
        look(page, "sign-in")
        page.goto(console.link(OperatorRole.ADMIN))
        look(page, "sign-in-link")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(SIGNED_IN)
        make_busy(tenant)
        with console.signed_in(OperatorRole.ADMIN) as admin:
            addresses = one_per_route(linked_pages(admin, create_app().routes))
        for name, address in addresses.items():
            page.goto(console.url + address)
            look(page, name)
        page.goto(f"{console.url}/find")
        page.get_by_label("Id, call SID, phone number or external id").fill(_of_a_retry(tenant))
        page.get_by_role("button", name="Find", exact=True).click()
        expect(page.get_by_role("heading", level=2)).to_have_text("Found by id")
        page.wait_for_load_state()
        look(page, "find-found")
        page.get_by_role("table").get_by_role("link").first.click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Attempt")
        page.wait_for_load_state()
        look(page, "attempt")
        console.pauses.pause(None, "a reason")
        page.goto(console.url)
        expect(page.locator("#live-status")).to_have_text("Live")
        look(page, "paused")
        assert errors == []
        for path in ("/nowhere", "/companies?show=none", "/unknown?company=x", "/audit?actor=x", "/quarantine?kind=x"):
            page.goto(console.url + path)
            look(page, path)


def _of_a_retry(tenant: Tenant) -> str:
    """Find the id of the interview with the most attempts."""
    [[interview_id]] = tenant.ask("SELECT interview_id FROM attempts GROUP BY 1 ORDER BY count(*) DESC LIMIT 1")
    return str(interview_id)


CELLS_WITH_WRONG_LABELS = """() => [...document.querySelectorAll('.blocks tbody tr')].flatMap(row => {
  const names = [...row.closest('table').querySelectorAll('thead th')].map(each => each.textContent.trim())
  return [...row.cells].filter((cell, place) => cell.tagName === 'TD' && cell.dataset.label !== names[place])
}).map(cell => cell.outerHTML)"""
HIDDEN_PARTS = """() => {
  const isCut = each => each.scrollWidth > each.clientWidth
  const hasNoLabel = cell => {
    const label = getComputedStyle(cell, '::before')
    const isOutside = parseFloat(label.marginLeft) < -parseFloat(getComputedStyle(cell).paddingLeft)
    return isOutside || !label.content.includes(cell.dataset.label)
  }
  const cut = [document.documentElement, ...document.querySelectorAll('.blocks')].filter(isCut)
  const unnamed = [...document.querySelectorAll('.blocks td')].filter(hasNoLabel)
  return [...cut, ...unnamed].map(each => each.outerHTML.slice(0, 200))
}"""


LISTS = ("attempts", "companies", "calendar", "unknown", "quarantine", "alarms", "keys", "erasures", "audit")


HIDDEN_CONTROLS = """() => [...document.querySelectorAll('main :is(button, .button, input, select)')].filter(each => {
  const own = each.getBoundingClientRect()
  if (!own.width || each.type === 'hidden') return false
  for (let box = each.parentElement; box; box = box.parentElement) {
    const isRoot = box === document.documentElement
    if (!isRoot && getComputedStyle(box).overflowX === 'visible') continue
    const rect = box.getBoundingClientRect()
    const [left, right] = isRoot ? [0, box.clientWidth] : [rect.left, rect.left + box.clientWidth + 2]
    if (own.left < left - 1 || own.right > right + 1) return true
  }
  return false
}).map(each => each.outerHTML.slice(0, 200))"""
SHOWN = {"unknown": "Decide…", "alarms": "Acknowledge…"}


def _rows_fit_a_narrow_screen(page: Page, path: str) -> None:
    """Cells are below each other, each with the name of its column, and a screen reader still finds a table."""
    page.set_viewport_size({"width": 320, "height": 640})
    rows = page.locator(".blocks tbody tr:visible").count()
    assert rows, path
    assert page.locator(".blocks").get_by_role("table").get_by_role("row").count() >= rows, path
    assert page.evaluate(CELLS_WITH_WRONG_LABELS) == [], path
    assert page.evaluate(HIDDEN_PARTS) == [], path
    assert violations(page) == [], path


def test_lists_and_controls_fit_narrow_and_wide_screens(console: Console, browser: Browser, tenant: Tenant) -> None:
    make_busy(tenant)
    work_pages(tenant, a_placed_attempt(tenant))
    tenant.change("UPDATE api_keys SET last_used_at = created_at, expires_at = created_at + interval '1 year'")
    tenant.change("UPDATE companies SET name = 'Company with a full day' WHERE id = :id", id=tenant.company_id)
    [[blocked]] = tenant.ask("SELECT id FROM attempts WHERE state = 'PENDING' ORDER BY due_at LIMIT 1")
    narrow = (*LISTS, f"attempts/{blocked}")
    with browser.new_context() as context:
        page = context.new_page()
        sign_in(page, console.link(OperatorRole.ADMIN))
        for path in ("", "webhooks", "batches", "find", f"companies/{tenant.company_id}", *narrow):
            if path == narrow[0]:
                console.pauses.pause(None, "a reason")
            page.goto(f"{console.url}/{path}")
            if SHOWN.get(path):
                expect(page.get_by_text(SHOWN[path], exact=True).first).to_be_visible()
            if path in narrow:
                shoot(page, f"narrow-{path[:10]}", "light")
                _rows_fit_a_narrow_screen(page, path)
            for width in (375, 1024, 1280, 1440):
                page.set_viewport_size({"width": width, "height": 800})
                assert page.evaluate(HIDDEN_CONTROLS) == [], (path, width)
        page.set_viewport_size({"width": 1280, "height": 720})
        for path in ("/keys", "/attempts"):
            page.goto(console.url + path)
            expect(page.locator("table time small").first).to_be_visible()
            assert page.locator(".scroll").evaluate("each => each.scrollWidth <= each.clientWidth"), path
            shoot(page, f"wide{path}", "light")
        name = page.get_by_role("link", name="Company with a full day").first.bounding_box()
        assert name is not None
        assert name["height"] < 2.5 * 22.5, "at most two lines"


def test_operator_signs_in_and_pauses_by_keyboard_alone(console: Console, browser: Browser) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(console.link())
        expect(page.get_by_role("button", name="Sign in")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Now")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("main")).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.locator("#act")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_label("Reason")).to_be_focused()
        page.keyboard.type("the voice server is down")
        page.keyboard.press("Enter")
        expect(page.get_by_text("All calls are paused.")).to_be_visible()
    assert console.pauses.active()[0] == "the voice server is down"


def test_operator_pauses_without_javascript(console: Console, browser: Browser) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        sign_in(page, console.link())
        page.get_by_role("link", name="Pause all calls").click()
        page.get_by_label("Reason").fill("no script")
        page.get_by_role("button", name="Pause all calls").click()
        expect(page.get_by_text("All calls are paused.")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_text("You are signed out.")).to_be_visible()
    assert console.pauses.active()[0] == "no script"


def test_reason_of_a_silent_phone_is_found_in_three_clicks(console: Console, browser: Browser, tenant: Tenant) -> None:
    """From the first page, by the number of a person who asks. Typing is no click."""
    a_pending_attempt(replace(tenant, now=real_now), "+421915010203")
    console.pauses.pause(tenant.company_id, "the agency asked for silence")
    with browser.new_context() as context:
        page = context.new_page()
        sign_in(page, console.link(OperatorRole.VIEWER))
        page.get_by_role("link", name="Find").click()
        page.get_by_label("Id, call SID, phone number or external id").fill("+421 915 010 203")
        page.get_by_role("button", name="Find", exact=True).click()
        page.locator("table a").first.click()
        expect(page.locator("main")).to_contain_text("COMPANY_PAUSED")
        expect(page.locator("main")).to_contain_text("the agency asked for silence")


def test_times_follow_the_clock_of_duecall(console: Console, browser: Browser) -> None:
    with browser.new_context(timezone_id="Europe/Bratislava") as context:
        page = context.new_page()
        page.clock.set_system_time(real_now() + timedelta(days=200))
        page.goto(console.link())
        expect(page.get_by_role("main").locator("time")).to_contain_text(re.compile(r"\(in (9|10) min"))
        expect(page.locator("#clock")).to_contain_text(" · ")
        shown = page.locator("#clock time").get_attribute("datetime")
    assert shown is not None
    assert abs(datetime.fromisoformat(shown) - real_now()) < timedelta(days=1)


def test_pause_of_another_tab_shows_in_an_open_page(console: Console, browser: Browser) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        sign_in(page, console.link())
        expect(page.locator("#live-status")).to_have_text("Live")
        console.pauses.pause(None, "from another tab")
        expect(page.locator("#banner")).to_contain_text("from another tab")
        expect(page.get_by_role("link", name="Resume all calls")).to_be_visible()


@pytest.fixture
def settings(broker: None, logins: Logins, valkey: EmbeddedValkey) -> Settings:
    return settings_of_console(logins, valkey.url, "http://127.0.0.1")


@pytest.mark.parametrize("has_javascript", [True, False])
def test_operator_signs_in_and_out_with_the_organisation(
    console: Console, browser: Browser, settings: Settings, has_javascript: bool
) -> None:
    """The provider is another site, so the browser sends the strict cookie only after a page of the console."""
    with (
        an_identity_provider() as provider,
        served(with_provider(settings, provider.issuer)) as url,
        browser.new_context(java_script_enabled=has_javascript) as context,
    ):
        provider.has_page = True  # otherwise browsers take the console for the site that began the request
        page, errors = context.new_page(), []
        page.on("console", lambda message: errors.append((message.location["url"], message.text)))
        page.goto(f"{url}/sign-in")
        assert not has_javascript or violations(page) == []
        page.get_by_role("button", name="Sign in with your organisation").click()
        page.get_by_role("link", name="Continue as").click()
        expect(page.get_by_role("heading", name="Now")).to_be_visible()
        assert page.url == f"{url}/"
        strict = {each["name"]: (each["sameSite"], each["httpOnly"]) for each in context.cookies()}
        assert strict == {"duecall-console": ("Strict", True)}
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Signed out of the organisation")).to_be_visible()
        assert console.sessions.all() == []
        provider.roles = []
        page.goto(f"{url}/sign-in")
        page.get_by_role("button", name="Sign in with your organisation").click()
        page.get_by_role("link", name="Continue as").click()
        expect(page.get_by_role("heading", name="You have no role in the console.")).to_be_visible()
        assert not has_javascript or violations(page) == []
        assert [text for place, text in errors if place.startswith(url) and "403 (Forbidden)" not in text] == []
