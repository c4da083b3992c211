"""Base images without a registry: Debian's Python, with the wheels that the Dockerfiles of both releases install."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

from tests.containers.release import read_of_0_1_0
from tests.support.compose import ROOT

_LOCK = "requirements.lock"
_PYTHON = {"python_version": "3.13", "python_full_version": "3.13.0", "implementation_name": "cpython"}
_PIP_CONF = "[global]\nno-index = true\nfind-links = /opt/wheels\n"
_PACKAGES = "python3,python3-venv,ca-certificates"


def make_base(folder: Path) -> None:
    """Write the root of a file system with what the official image python:3.13-slim has, and wheels. As root."""
    root, wheels, log = folder / "base", folder / "wheels", folder / "debootstrap.log"
    command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "trixie", str(root)]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as making:
        _download_wheels(wheels)
    if making.returncode != 0:
        sys.exit(log.read_text(encoding="utf-8", errors="replace")[-3000:])
    (root / "usr/bin/python").symlink_to("python3")
    (root / "etc/pip.conf").write_text(_PIP_CONF, encoding="ascii")
    for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(root / waste, ignore_errors=True)
    wheels.rename(root / "opt/wheels")


def _download_wheels(into: Path) -> None:
    """Download what the images need with its hashes. Two versions of a package need two runs of pip."""
    today = _locked_for_image((ROOT / _LOCK).read_text(encoding="utf-8"))
    before = _locked_for_image(read_of_0_1_0(_LOCK))
    _download(today, into)
    _download([line for line in before if line not in today], into)


def _download(lines: list[str], into: Path) -> None:
    """Download wheels for the image. By default pip chooses those for the Python that runs it."""
    lock = into.with_suffix(".lock")
    lock.write_text("\n".join(lines), encoding="utf-8")
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


def _locked_for_image(lock: str) -> list[str]:
    """List the requirements of a lock file that hold for Python 3.13, without their conditions."""
    lines = [line for line in lock.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    chosen = []
    for line in lines:
        name, *hashes = line.split("--hash=")
        wanted = Requirement(name)
        if wanted.marker is None or wanted.marker.evaluate(_PYTHON):
            wanted.marker = None
            chosen.append(" ".join([str(wanted), *(f"--hash={each.strip()}" for each in hashes)]))
    return chosen
