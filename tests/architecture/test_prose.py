"""Plain English: words of our old dialect, and docstrings that begin with a question, fail here.

Covers docstrings, comments, messages, help texts, identifiers, the OpenAPI document, Markdown, and the comments of the
files that operators edit. Text in backticks is code.
"""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.sources import ROOT, nodes

WORDS = {
    "name the agent": r"\b(?:whoever|whomever|nobody|somebody|anybody|everybody)\b",
    "a modern word": r"\b(?:anew|nought|save for|for ever|shall|whence|lest|mend(?:s|ed)?|in vain)\b",
    "an adjective": r"\b(?:is|are|was|were|has|have) (?-i:none)\b",
    "no longer": r"\bany more\b(?! than)|\b(?:is|are|was|were|be|listed|theirs|counts?|rings?) no more\b(?! than)",
}
_LISTED = re.compile("|".join(WORDS.values()), re.IGNORECASE)
NO_AGENT = re.compile("nobody|somebody|anybody|everybody|whoever|whomever", re.IGNORECASE)
"""Parts of identifiers that hide the agent: caller, client, operator, worker."""
QUESTION = re.compile(r"(?:what|when|who|whom|whose|whether|how|which|whoever|why|the same)\b", re.IGNORECASE)
FOLDERS = ("scheduler", "api_shim", "workers", "console", "standalone", "command_line", "client", "tests", "docs")
WITH_COMMENTS = (
    ".env.example",
    ".ci/run",
    "Dockerfile",
    "Makefile",
    "Procfile",
    "deploy/prometheus/duecall.rules.yml",
    "deploy/prometheus/duecall.rules.tests.yml",
    "docker-compose.yml",
    "pyproject.toml",
)
MAX_NAME = 60
"""Characters in the name of a test."""
MOST_RETURNS = 0.1
"""The share of functions whose docstring may begin with "Return". Another verb says what is done."""

_CODE = re.compile(r"``?[^`]*``?")
_SQL = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|SET|GRANT|BEGIN|AND|FROM|WHERE)\b")
_SENTENCE = re.compile(r"[A-Za-z]{2,} [a-z]{2,}.* [a-z]{2,}", re.DOTALL)
_MARKERS = ("noqa", "guard:", "type:", "!")


def _python(path: Path) -> Iterator[tuple[int, bool, str]]:
    """Yield (line, is a docstring's, text) of each docstring, comment and message."""
    source = path.read_text(encoding="utf-8")
    # Reading the tokens takes most of the time, and hardly any module needs it.
    if any(_LISTED.search(line.partition("#")[2]) for line in source.splitlines()):
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            text = token.string.lstrip("# ")
            if token.type == tokenize.COMMENT and not text.startswith(_MARKERS):
                yield token.start[0], False, text
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(_first(node)) for node in nodes(path) if isinstance(node, documented)}
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_docstring = id(node) in docstrings
            if is_docstring or (_SENTENCE.search(node.value) and not _SQL.match(node.value)):
                yield node.lineno, is_docstring, node.value


def _first(node: Any) -> Any:
    """Read the value of the first statement, which is the docstring if it is a string."""
    return getattr(node.body[0], "value", None) if node.body else None


def _markdown(path: Path) -> Iterator[tuple[int, bool, str]]:
    is_code = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code:
            yield number, False, line


def _document(node: Any) -> Iterator[tuple[int, bool, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in {"summary", "description"} and isinstance(value, str):
                yield 0, False, value
            else:
                yield from _document(value)
    elif isinstance(node, list):
        for value in node:
            yield from _document(value)


def _comments(path: Path) -> Iterator[tuple[int, bool, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        _, mark, comment = line.partition("#")
        if mark:
            yield number, False, comment


def _texts(path: Path) -> Iterator[tuple[int, bool, str]]:
    if path.suffix == ".py":
        return _python(path)
    if path.suffix == ".json":
        return _document(json.loads(path.read_text(encoding="utf-8")))
    return _markdown(path) if path.suffix == ".md" else _comments(path)


def _faults(path: Path, place: str) -> Iterator[str]:
    for line, is_docstring, text in _texts(path):
        flat = _CODE.sub("X", re.sub(r"\s*\n\s*", " ", text))
        for wanted, pattern in WORDS.items() if _LISTED.search(flat) else ():
            for match in re.finditer(pattern, flat, re.IGNORECASE):
                around = flat[max(0, match.start() - 40) : match.end() + 40]
                yield f"{place}:{line}: {wanted}: … {around} …"
        if is_docstring and QUESTION.match(flat.strip()):
            yield f"{place}:{line}: begins with a question word: {flat[:80]}"


def _files() -> dict[Path, str]:
    """List the files that are covered, each with its path below the root. This one lists the words themselves."""
    found = [path for folder in FOLDERS for kind in ("*.py", "*.md") for path in (ROOT / folder).rglob(kind)]
    found = [path for path in found if not {"generated", "node_modules"} & set(path.parts)]
    found += [*ROOT.glob("*.md"), ROOT / "docs" / "openapi.json", *(ROOT / name for name in WITH_COMMENTS)]
    names = {path: path.relative_to(ROOT).as_posix() for path in sorted(found) if path != Path(__file__).resolve()}
    return {path: name for path, name in names.items() if "/versions/" not in name}


def test_texts_are_plain_english() -> None:
    faults = [fault for path, place in _files().items() for fault in _faults(path, place)]
    assert not faults, f"{len(faults)} places:\n" + "\n".join(faults)


def faults_of(text: str, folder: Path) -> list[str]:
    path = folder / "a_module.py"
    path.write_text(text, encoding="utf-8")
    return list(_faults(path, path.name))


@pytest.mark.parametrize(
    "text",
    [
        '"""What is missing."""',
        '"""Return it.\n\nNobody waits."""',
        "# held for ever",
        'fail("the row is listed no more")',
    ],
)
def test_old_dialect_is_found(text: str, tmp_path: Path) -> None:
    assert len(faults_of(text, tmp_path)) == 1


def _identifiers(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of each variable, attribute, parameter, function, class and import of a module."""
    for node in nodes(path):
        for field in ("id", "attr", "arg", "name", "asname"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield getattr(node, "lineno", 0), name


def _names_without_an_agent(path: Path, place: str) -> list[str]:
    return [f"{place}:{line}: {name}" for line, name in _identifiers(path) if NO_AGENT.search(name)]


def test_identifiers_name_the_agent() -> None:
    modules = {path: place for path, place in _files().items() if path.suffix == ".py"}
    found = [each for path, place in modules.items() for each in _names_without_an_agent(path, place)]
    assert not found, f"{len(found)} names:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text", ["nobody = 1", "def to_somebody(): ...", "def to(nobody): ...", "class Anybody: ...", "to(whoever=1)"]
)
def test_identifier_without_an_agent_is_found(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a_module.py"
    path.write_text(text, encoding="utf-8")
    assert len(_names_without_an_agent(path, path.name)) == 1


def test_code_and_sql_are_not_prose(tmp_path: Path) -> None:
    text = '"""Return `nobody`, and no more than two."""\nrun("SELECT 1 FROM shall WHERE nobody IS NULL")\n'
    assert not faults_of(text, tmp_path)


def test_names_of_tests_are_short() -> None:
    found = [
        f"{place}: {name}"
        for path, place in _files().items()
        if path.name.startswith("test_")
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        if len(name) > MAX_NAME
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "folder", ["scheduler", "workers", "api_shim", "console", "standalone", "command_line", "tests"]
)
def test_few_docstrings_begin_with_return(folder: str) -> None:
    paths = (ROOT / folder).rglob("*.py")
    functions = [
        node for path in paths for node in nodes(path) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    docstrings = [text for text in map(ast.get_docstring, functions) if text]
    assert sum(text.startswith("Return") for text in docstrings) <= MOST_RETURNS * len(docstrings)
