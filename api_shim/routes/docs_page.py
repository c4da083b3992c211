"""HTTP routes for `/docs`, which shows the OpenAPI document. All of its files are served here: it needs no network."""

import importlib.util
import os

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
"""A cached file is asked for again, so that no browser combines the files of two releases."""

router = APIRouter(include_in_schema=False)


class _FilesOfThePage(StaticFiles):
    """The page and the files that it names. Their folders contain others."""

    _NAMES = frozenset({"index.html", "start.js", "icon.svg", "swagger-ui-bundle.js", "swagger-ui.css"})

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(path) if path in self._NAMES else ("", None)


_FOLDERS = [("api_shim", "swagger_ui"), ("fastapi_offline", "static")]
"""Swagger UI comes from a package. Its folder is found without importing it. Without it, only this page fails."""
_files = _FilesOfThePage(packages=[each for each in _FOLDERS if importlib.util.find_spec(each[0]) is not None])


@router.api_route("/docs", methods=["GET", "HEAD"])
async def get_docs_page(request: Request) -> Response:
    return await _served("index.html", request)


@router.api_route("/docs/{name}", methods=["GET", "HEAD"])
async def get_file_of_docs_page(name: str, request: Request) -> Response:
    return await _served(name, request)


async def _served(name: str, request: Request) -> Response:
    response = await _files.get_response(name, request.scope)
    response.headers.update(_HEADERS)
    return response
