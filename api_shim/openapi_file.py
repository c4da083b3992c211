"""The OpenAPI document in the repository, so that changes of the public API show up in reviews."""

import json
from pathlib import Path

from api_shim.app import create_app


class DocumentDiffers(Exception):
    """The file differs from the document of the API."""


def text() -> str:
    """Build the document that is served as /openapi.json, indented by two spaces, with a final newline."""
    return json.dumps(create_app().openapi(), indent=2, ensure_ascii=False) + "\n"


def check(path: Path) -> None:
    """Compare the file with `text()`, byte for byte. Raises DocumentDiffers, also if the file is missing."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text():
        raise DocumentDiffers(f"{path} differs from the document of the API. Run make openapi.")
