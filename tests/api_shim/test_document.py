"""The API serves the document that is in the repository, and a difference is reported."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from api_shim import openapi_file
from api_shim.app import create_app
from api_shim.openapi_file import DocumentDiffers
from tests.api_shim.document_operations import DOCUMENT


def changed(document: str, old: str, new: str) -> str:
    assert old in document
    return document.replace(old, new, 1)


def test_document_in_the_repository_is_up_to_date() -> None:
    openapi_file.check(DOCUMENT)
    assert json.loads(DOCUMENT.read_text(encoding="utf-8")) == json.loads(json.dumps(create_app().openapi()))


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(lambda document: changed(document, '"Candidate', '"Person'), id="another text"),
        pytest.param(lambda document: document.removesuffix("\n"), id="no final newline"),
        pytest.param(lambda document: json.dumps(json.loads(document)), id="other indentation"),
        pytest.param(None, id="no file"),
    ],
)
def test_file_that_differs_from_the_document_is_found(folder: Path, said: Callable[[str], str] | None) -> None:
    file = folder / "openapi.json"
    if said is not None:
        file.write_text(said(openapi_file.text()), encoding="utf-8")
    with pytest.raises(DocumentDiffers):
        openapi_file.check(file)


def test_openapi_check_accepts_the_written_file_and_no_other(folder: Path) -> None:
    file = folder / "openapi.json"
    assert duecall("write", file).returncode == 0
    assert file.read_bytes() == DOCUMENT.read_bytes()
    file.write_text("{}", encoding="utf-8")
    checked = duecall("check", file)
    assert checked.returncode == 1
    assert " ".join(checked.stderr.split()) == f"{file} differs from the document of the API. Run make openapi."


def duecall(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scheduler", "openapi", *words], check=False, capture_output=True, text=True
    )
