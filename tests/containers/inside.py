"""The part of `make containers` that runs as the first process of its namespaces."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.containers.images import make_base

_WITH_LOOPBACK = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
_PYTEST = ["-m", "pytest", "-x", "-p", "no:cacheprovider", "--durations=0", "--durations-min=1", "tests/containers"]


def main(folder: Path, options: list[str]) -> None:
    """Make base images with the network, and run the tests without it. All files are in memory."""
    _mount(folder, "size=8g")
    began = time.monotonic()
    make_base(folder)
    print(f"downloaded and made the base image in {time.monotonic() - began:.0f} s", flush=True)
    _mount(Path("/run"), "size=64m")  # Docker's parts keep sockets there
    places = {"DUECALL_CONTAINERS": folder, "DOCKER_CONFIG": folder / "docker-config", "TMPDIR": folder / "tmp"}
    for place in places.values():
        place.mkdir(exist_ok=True)
    words = [*_WITH_LOOPBACK, sys.executable, "-B", *_PYTEST, *options]
    kept = {"PYTHONDONTWRITEBYTECODE": "1"} | {name: str(place) for name, place in places.items()}
    os.execvpe(words[0], words, {**os.environ, **kept})


def _mount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=755,{options}", "duecall-containers", place], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
