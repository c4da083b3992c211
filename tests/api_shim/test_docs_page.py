"""/docs works without a network: all of its files are served by the API, under a strict Content-Security-Policy."""

import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from hatchling.builders.wheel import WheelBuilder

from api_shim.app import create_app
from api_shim.routes.docs_page import FOLDER
from tests.api_shim.intake import Intake
from tests.architecture.test_code_rules import ROOT
from tests.docs.pages import read

COPIED = {
    "LICENSE": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
    "NOTICE": "0d20d1adef18aee3f40dd258172155521ce702ac445cb5f7b7d60ed32dad2fb2",
    "favicon-32x32.png": "3ed612f41e050ca5e7000cad6f1cbe7e7da39f65fca99c02e99e6591056e5837",
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui-bundle.js.LICENSE.txt": "37eb6e7e59aed57b2c1acf076574b818ea07b74265717e0bd67b59e0baf9abbb",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}
"""Files of the released package, with the SHA-256 of each."""
OURS = {"README.md", "index.html", "start.js"}
TYPES = {
    "docs/favicon-32x32.png": ("image/png",),
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


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fapp.py", "%2Fetc%2Fpasswd", "", "swagger-ui.css/"])
def test_other_files_are_not_served(intake: Intake, name: str) -> None:
    answer = intake.client.get(f"/docs/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ROUTE_NOT_FOUND")


def test_files_of_swagger_ui_are_those_of_the_release() -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.iterdir()}
    assert {name: sum_ for name, sum_ in found.items() if name not in OURS} == COPIED
    assert set(found) >= OURS
    readme = read(FOLDER / "README.md")
    assert re.search(r"`swagger-ui-dist` \d+\.\d+\.\d+ \(Apache License 2\.0\)", readme)
    assert [name for name in COPIED if f"`{name}`" not in readme] == []


def test_wheel_contains_the_files_of_docs_page() -> None:
    included = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {f"{Path('api_shim', FOLDER.name, name)}" for name in (*COPIED, *OURS)} <= included
