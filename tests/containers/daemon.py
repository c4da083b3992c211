"""A Docker daemon of the tests, with all its data in their folder."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import wait_until

HERE = Path(__file__).parent
CGROUP = "duecall-containers"
_WITHOUT_NETWORKS = ["--bridge=none", "--iptables=false", "--ip6tables=false"]
_WITHOUT_SYSTEMD = ["--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent=/{CGROUP}"]


@contextmanager
def a_daemon(folder: Path) -> Iterator[str]:
    """Yield the address of a daemon without networks. Its containers end with it."""
    address = f"unix://{folder}/docker.sock"
    places = [f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/docker.pid"]
    with (folder / "dockerd.log").open("wb") as log:
        options = [f"--host={address}", *_WITHOUT_NETWORKS, *_WITHOUT_SYSTEMD, *places]
        daemon = subprocess.Popen(["dockerd", *options], stdout=log, stderr=log)
    try:
        wait_until(lambda: daemon.poll() is not None or _answers(address), seconds=60, says="dockerd answers")
        assert daemon.poll() is None, (folder / "dockerd.log").read_text(encoding="utf-8")[-3000:]
        yield address
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)


def _answers(address: str) -> bool:
    return subprocess.run(["docker", "--host", address, "info"], capture_output=True, check=False).returncode == 0


def make_images(address: str, base: Path) -> None:
    """Make the images that the Dockerfile and the compose file name, as a registry would provide them."""
    docker = ["docker", "--host", address]
    with subprocess.Popen(["tar", "-C", str(base), "-c", "."], stdout=subprocess.PIPE) as packed:
        subprocess.run(
            [*docker, "import", "-", "python:3.13-slim"], stdin=packed.stdout, check=True, capture_output=True
        )
    servers = {"postgres:18": "postgres", "valkey/valkey:9": "valkey"}
    builds = {
        image: subprocess.Popen(
            [*docker, "build", "--quiet", "--network=none", f"--tag={image}", str(HERE / folder)],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "DOCKER_BUILDKIT": "1"},
        )
        for image, folder in servers.items()
    }
    assert {image: build.wait() for image, build in builds.items()} == dict.fromkeys(builds, 0)
