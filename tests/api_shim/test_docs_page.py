"""/docs works without a network: all of its files are served by the API, under a strict Content-Security-Policy."""

import base64
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib import metadata
from pathlib import Path

import httpx
import pytest
from hatchling.builders.wheel import WheelBuilder
from playwright.sync_api import expect, sync_playwright
from starlette.types import Receive, Scope, Send

from api_shim.app import create_app
from tests.api_shim.intake import Intake
from tests.architecture.sources import ROOT
from tests.docs.pages import read
from tests.support.servers import serving

CHROMIUM = Path("/usr/bin/chromium")
FOLDER = ROOT / "api_shim" / "swagger_ui"
PACKAGE = "fastapi-offline"

OF_THE_PACKAGE = ("swagger-ui-bundle.js", "swagger-ui.css")
OURS = {"README.md", "icon.svg", "index.html", "start.js"}
NOT_OF_THE_PAGE = ("README.md", "redoc.standalone.js", "favicon.png", "console.js")
"""Files of the same folders."""
TYPES = {
    "docs/icon.svg": ("image/svg+xml",),
    "docs/swagger-ui.css": ("text/css",),
    "docs/swagger-ui-bundle.js": ("text/javascript", "application/javascript"),
    "docs/start.js": ("text/javascript", "application/javascript"),
}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """The API without a database: the page needs none."""
    over = httpx.ASGITransport(app=create_app())
    async with httpx.AsyncClient(transport=over, base_url="http://duecall.test") as client:
        yield client


async def test_docs_page_names_no_other_host(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "//" not in page.text
    assert "//" not in re.sub(r"(?m)(^| )// .*$", "", (await client.get("/docs/start.js")).text)


async def test_docs_page_contains_no_script_or_style(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert re.findall(r"<script[^>]*>([^<]+)", page.text) == []
    assert re.search(r"<style|style=|\son\w+=", page.text) is None
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("base", ["/", "/v1/"])
async def test_files_of_docs_page_are_served(client: httpx.AsyncClient, base: str) -> None:
    links = re.findall(r'(?:src|href)="([^"]+)"', (await client.get(f"{base}docs")).text)
    assert set(links) == set(TYPES)
    for link in links:
        answer = await client.get(base + link)
        assert answer.status_code == 200, link
        assert answer.headers["content-type"].partition(";")[0] in TYPES[link]
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_document_of_docs_page_is_served(client: httpx.AsyncClient) -> None:
    [url] = re.findall(r'url: "([^"]+)"', (await client.get("/docs/start.js")).text)
    for base in ("/", "/v1/"):
        assert (await client.get(base + url)).json()["info"]["title"] == "Duecall"


async def test_docs_page_asks_no_online_validator(client: httpx.AsyncClient) -> None:
    assert "validatorUrl: null" in (await client.get("/docs/start.js")).text


async def test_unchanged_file_is_not_sent_again(client: httpx.AsyncClient) -> None:
    first = await client.get("/docs/swagger-ui.css")
    again = await client.get("/docs/swagger-ui.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "name", ["nothing.js", "..%2Fapp.py", "%2Fetc%2Fpasswd", "", "swagger-ui.css/", *NOT_OF_THE_PAGE]
)
def test_other_files_are_not_served(intake: Intake, name: str) -> None:
    answer = intake.client.get(f"/docs/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ROUTE_NOT_FOUND")


@pytest.mark.parametrize("name", OF_THE_PACKAGE)
async def test_swagger_ui_is_that_of_the_package(client: httpx.AsyncClient, name: str) -> None:
    """The served bytes have the SHA-256 that the wheel records. The lock files contain the hash of the wheel."""
    [file] = [each for each in metadata.files(PACKAGE) or () if str(each) == f"fastapi_offline/static/{name}"]
    assert file.hash is not None
    answer = await client.get(f"/docs/{name}")
    sha256 = hashlib.sha256(answer.content).digest()
    assert (file.hash.mode, file.hash.value) == ("sha256", base64.urlsafe_b64encode(sha256).decode().rstrip("="))


_WITHOUT_THE_PACKAGE = """
import asyncio, importlib.util, sys, httpx

found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "fastapi_offline" else found(name, *more)

from api_shim.app import create_app


async def statuses():
    over = httpx.ASGITransport(app=create_app())
    async with httpx.AsyncClient(transport=over, base_url="http://duecall.test") as client:
        for path in ("openapi.json", "docs"):
            yield (await client.get(f"/{path}")).status_code


async def main():
    print([each async for each in statuses()], "fastapi_offline" in sys.modules)


asyncio.run(main())
"""


def test_docs_page_does_not_import_the_package_of_swagger_ui() -> None:
    """Its Python code would add a second page, without a Content-Security-Policy. The API starts without it."""
    done = subprocess.run([sys.executable, "-c", _WITHOUT_THE_PACKAGE], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["[200, 200] False"], done.stderr


def test_licence_of_swagger_ui_is_named() -> None:
    assert metadata.metadata(PACKAGE)["License"] == "MIT"
    assert "Apache 2.0" in str(metadata.metadata(PACKAGE).json["description"])
    readme = read(FOLDER / "README.md")
    assert f"`{PACKAGE}` (MIT)" in readme
    assert "Apache License 2.0" in readme
    assert [name for name in OF_THE_PACKAGE if f"`{name}`" not in readme] == []


def test_no_file_of_swagger_ui_is_copied() -> None:
    assert {path.name for path in FOLDER.iterdir()} == OURS
    included = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {f"{Path('api_shim', FOLDER.name, name)}" for name in OURS} <= included
    assert [name for name in included if name.endswith(OF_THE_PACKAGE)] == []


@pytest.mark.skipif(os.environ.get("CI") != "true" and not CHROMIUM.exists(), reason="chromium is not installed")
def test_docs_page_works_in_a_browser_without_network() -> None:
    app, asked, errors = create_app(), [], []

    async def without_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        """Serve requests. The lifespan would open a database, which the page does not need."""
        if scope["type"] == "http":
            await app(scope, receive, send)

    with serving(without_lifespan) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(f"{url}/v1/docs")
        page.get_by_text("Schedule an interview and its first call", exact=True).click()
        expect(page.get_by_role("heading", name="Request body")).to_be_visible(timeout=30_000)
        browser.close()
    assert f"{url}/v1/openapi.json" in asked
    assert [each for each in asked if not each.startswith((f"{url}/", "data:"))] == []
    assert errors == []
