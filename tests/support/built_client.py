"""The Python client, built from a copy of its sources as `make client` builds it."""

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from tests.architecture.sources import ROOT

CLIENT = ROOT / "client" / "python"
DOCUMENT = ROOT / "docs" / "openapi.json"
GENERATED = Path("src") / "duecall_client" / "generated"


def write_client(folder: Path) -> list[str]:
    """Write the generated package into this folder. Return the warnings."""
    spec = importlib.util.spec_from_file_location("generate_client", CLIENT / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.write(DOCUMENT, folder))


def built(folder: Path) -> Path:
    """Build the wheel in this folder, from a copy of the sources. Return its path."""
    copy = folder / "python"
    shutil.copytree(CLIENT, copy, ignore=shutil.ignore_patterns("generated", "dist", "__pycache__"))
    # As in the repository: hatch leaves out what Git ignores, unless it is an artifact.
    shutil.copy(ROOT / ".gitignore", folder / ".gitignore")
    assert write_client(copy / GENERATED) == []
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    run = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    [wheel] = (copy / "dist").glob("*.whl")
    return wheel


def installed(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel, as pip does, into a folder for `sys.path`."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder
