"""The TypeScript types and examples compile, and the npm package verifies what the product signs."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scheduler.webhooks.sending import body_of, new_secret, signed_headers
from tests.architecture.sources import ROOT
from tests.conftest import NOON, real_now

SOURCES = ROOT / "client" / "typescript"
IN_CI = os.environ.get("CI") == "true"
ID = "019ac4a1-7f0e-7c55-8d0a-3a8f0a4c1d11"

needs_npm = pytest.mark.skipif(
    shutil.which("npm") is None and not IN_CI,
    reason="needs npm: `make debian` as root; CI has it",
)


def npm(folder: Path, *arguments: str, said: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run npm in this folder, with this standard input."""
    return subprocess.run(
        ["npm", *arguments], cwd=folder, input=said, capture_output=True, text=True, check=False, timeout=200
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, with its packages, its types and its compiled examples."""
    root = tmp_path_factory.mktemp("typescript")
    folder = root / "client" / "typescript"
    shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("node_modules", "build", "duecall.ts"))
    (root / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "openapi.json", root / "docs")
    install = npm(folder, "ci", "--prefer-offline", "--fetch-retries=1")
    if install.returncode != 0 and not IN_CI:
        pytest.skip(f"npm cannot install the packages: {install.stderr[-500:]}")
    assert install.returncode == 0, install.stderr
    for script in ("types", "build"):
        run = npm(folder, "run", script)
        assert run.returncode == 0, run.stdout + run.stderr
    return folder


def verified(project: Path, body: str, headers: dict[str, str], *secrets: str) -> subprocess.CompletedProcess[str]:
    given = json.dumps({"body": body, "headers": headers, "secrets": secrets})
    return npm(project, "run", "--silent", "verify", said=given)


def test_lock_file_has_hashes_and_names_no_index() -> None:
    text = (SOURCES / "package-lock.json").read_text(encoding="utf-8")
    packages: dict[str, Any] = json.loads(text)["packages"]
    assert [name for name, package in packages.items() if name and "integrity" not in package] == []
    assert not any("resolved" in package for package in packages.values())
    assert set(re.findall(r"https?://([^/\"]+)", text)) <= {"github.com"}, "where to fund a package"


def test_each_package_has_an_exact_version() -> None:
    needed = json.loads((SOURCES / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    assert [version for version in needed.values() if not version.replace(".", "").isdecimal()] == []


@needs_npm
def test_types_have_each_operation(project: Path) -> None:
    paths = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))["paths"]
    types = (project / "src" / "duecall.ts").read_text(encoding="utf-8")
    operations = {each["operationId"] for path in paths.values() for each in path.values()}
    assert {each for each in operations if f"\n    {each}: {{" not in types} == set()


@needs_npm
def test_wrong_field_does_not_compile(project: Path) -> None:
    wrong = project / "src" / "wrong.ts"
    wrong.write_text(
        'import type { components } from "./duecall.js";\n'
        'export const moved: components["schemas"]["CallMove"] = { scheduledOn: "2026-04-02T09:00:00" };\n'
    )
    run = npm(project, "run", "build", "--", "--noEmit")
    wrong.unlink()
    assert run.returncode != 0
    assert "scheduledOn" in run.stdout


@needs_npm
def test_npm_package_verifies_what_the_product_signs(project: Path) -> None:
    """With the old secret and with the new one, and with no other."""
    old, new, another = new_secret(), new_secret(), new_secret()
    body = body_of("call_attempt.ended", ID, NOON, 5, {"externalId": "order 17"})
    headers = signed_headers(ID, body, (new, old), real_now())
    for known in ((old,), (new,), (another, new)):
        run = verified(project, body, headers, *known)
        assert (run.returncode, run.stdout) == (0, f"call_attempt.ended {ID}\n"), run.stderr
    for refused in (verified(project, body, headers, another), verified(project, body + " ", headers, new)):
        assert refused.returncode != 0
        assert "WebhookVerificationError" in refused.stderr
