"""The wheel of the Python client: its content, its types, and that it is the same each time."""

import importlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.sources import ROOT
from tests.support.built_client import CLIENT, DOCUMENT, built
from tests.support.exhaustive import WHOLE

PYTHON_OF_PAGES = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [CLIENT / "README.md", ROOT / "docs" / "how-to" / "use-the-client.md"]


def test_client_has_a_function_for_each_operation(site: Path) -> None:
    paths = json.loads(DOCUMENT.read_text(encoding="utf-8"))["paths"]
    operations = {each["operationId"] for path in paths.values() for each in path.values()}
    made = {path.stem for path in (site / "duecall_client" / "generated" / "api").glob("*/*.py")} - {"__init__"}
    assert {each.replace("_", "") for each in made} == {each.lower() for each in operations}


def test_wheel_is_the_same_each_time(wheel: Path, tmp_path: Path) -> None:
    assert built(tmp_path).read_bytes() == wheel.read_bytes()


def test_wheel_names_what_it_needs(wheel: Path, site: Path) -> None:
    [metadata] = site.glob("duecall_client-*.dist-info/METADATA")
    needed = set(re.findall(r"^Requires-Dist: ([\w-]+)", metadata.read_text(encoding="utf-8"), re.MULTILINE))
    texts = "".join(path.read_text(encoding="utf-8") for path in (site / "duecall_client").rglob("*.py"))
    imported = set(re.findall(r"^(?:from|import) (\w+)", texts, re.MULTILINE))
    assert needed == imported - sys.stdlib_module_names - {"duecall_client", ""}
    assert (site / "duecall_client" / "py.typed").exists(), "without it mypy reads no types"


def test_clients_have_the_version_of_the_product() -> None:
    product, client = (tomllib.loads((folder / "pyproject.toml").read_text()) for folder in (ROOT, CLIENT))
    package, lock = (
        json.loads((CLIENT.parent / "typescript" / name).read_text()) for name in ("package.json", "package-lock.json")
    )
    versions = (client["project"]["version"], package["version"], lock["version"], lock["packages"][""]["version"])
    assert versions == (product["project"]["version"],) * 4


def test_client_and_its_examples_have_strict_types(site: Path, tmp_path: Path) -> None:
    """`make proof` also checks the bodies of the generated functions, of which each is like the next."""
    for page in PAGES:
        # The blocks of a page are one program.
        program = "\n".join(PYTHON_OF_PAGES.findall(page.read_text(encoding="utf-8")))
        assert "duecall_client" in program, page
        (tmp_path / f"page_{page.stem.lower().replace('-', '_')}.py").write_text(program, encoding="utf-8")
    shutil.copy(ROOT / "tests" / "client" / "partners_day.py", tmp_path)
    config = tmp_path / "mypy.toml"
    orders = (CLIENT / "pyproject.toml").read_text(encoding="utf-8")
    config.write_text(orders + ("" if WHOLE else _SIGNATURES_ONLY), encoding="utf-8")
    command = [
        *(sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", "/dev/null"),
        *(str(site / "duecall_client"), *map(str, tmp_path.glob("*.py"))),
    ]
    run = subprocess.run(command, cwd=site, capture_output=True, text=True, check=False, env={"MYPYPATH": str(site)})
    assert run.returncode == 0, run.stdout + run.stderr


_SIGNATURES_ONLY = """
[[tool.mypy.overrides]]
module = "duecall_client.generated.*"
ignore_errors = true
"""


@pytest.mark.parametrize(("text", "is_known"), [("PENDING", True), ("A_STATE_OF_NEXT_YEAR", False)])
def test_unknown_value_of_the_server_is_kept(client_package: Any, text: str, is_known: bool) -> None:
    state: Any = importlib.import_module(f"{client_package.__name__}.generated.models").AttemptState
    assert (text in state.__members__, state(text), str(state(text))) == (is_known, text, text)
