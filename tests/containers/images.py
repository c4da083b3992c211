"""Base images without a registry: Debian's Python, with the wheels that the Dockerfile installs."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

from tests.support.compose import ROOT

_PYTHON = {"python_version": "3.13", "python_full_version": "3.13.0", "implementation_name": "cpython"}
_PIP_CONF = "[global]\nno-index = true\nfind-links = /opt/wheels\n"


def make_base(folder: Path) -> Path:
    """Return the root of a file system with what the official image python:3.13-slim has, and wheels. As root."""
    root = folder / "base"
    command = [
        "debootstrap",
        "--variant=minbase",
        "--include=python3,python3-venv,ca-certificates",
        "trixie",
        str(root),
    ]
    with (folder / "debootstrap.log").open("wb") as log:
        done = subprocess.run(command, stdout=log, stderr=log, check=False)
    if done.returncode != 0:
        sys.exit((folder / "debootstrap.log").read_text(encoding="utf-8", errors="replace")[-3000:])
    (root / "usr/bin/python").symlink_to("python3")
    (root / "etc/pip.conf").write_text(_PIP_CONF, encoding="ascii")
    for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(root / waste, ignore_errors=True)
    _download_wheels(folder, root / "opt/wheels")
    return root


def _download_wheels(folder: Path, into: Path) -> None:
    """Download what the image needs with its hashes. Pip would choose by the Python that runs it."""
    lock = folder / "image.lock"
    lock.write_text("\n".join(_locked_for_image()), encoding="utf-8")
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}_{machine}" for minor in (39, 34, 28, 27, 24, 17)] + [f"manylinux2014_{machine}"]
    abis = ("cp313", "abi3", "none")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        + ["--python-version=3.13", "--implementation=cp", f"--dest={into}", f"--requirement={lock}"]
        + [f"--platform={tag}" for tag in tags]
        + [f"--abi={abi}" for abi in abis],
        check=True,
    )


def _locked_for_image() -> list[str]:
    """Return the requirements of the lock file that hold for Python 3.13, without their conditions."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    chosen = []
    for line in lines:
        name, *hashes = line.split("--hash=")
        wanted = Requirement(name)
        if wanted.marker is None or wanted.marker.evaluate(_PYTHON):
            wanted.marker = None
            chosen.append(" ".join([str(wanted), *(f"--hash={each.strip()}" for each in hashes)]))
    return chosen
