"""The document of the public API as it stands in the repository: a change of the API is seen where it is reviewed."""

import json
from pathlib import Path

from api_shim.app import create_app


class DocumentDiffers(Exception):
    """The file does not say what the API does."""


def text() -> str:
    """What is served as /openapi.json, laid out for people: in its own order, two spaces, a line at the end."""
    return json.dumps(create_app().openapi(), indent=2, ensure_ascii=False) + "\n"


def check(path: Path) -> None:
    """Raises DocumentDiffers when the file is missing, or is not what `text` gives, byte for byte."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text():
        raise DocumentDiffers(f"{path} is not what the API says; run make openapi")
