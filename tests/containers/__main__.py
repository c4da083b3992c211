"""`make containers`: run the tests of this folder with a Docker daemon of their own, in a network of only loopback.

No registry is needed: base images are built from Debian packages and the wheels of the lock file. Kernel namespaces end
every process and mount with the run, however it ends.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.containers.images import make_base
from tests.support.compose import ROOT

PROGRAMS = ("dockerd", "docker", "debootstrap", "ip", "unshare", "openssl")
_IN_NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
_WITH_LOOPBACK = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def _missing() -> str | None:
    if os.geteuid() != 0:
        return "it needs root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)} not found; `make debian` installs them"
    plugins = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return None if plugins.returncode == 0 else "docker compose not found; `make debian` installs it"


def _end(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Return the exit status: 0 if the machine cannot run containers, except in CI."""
    if (missing := _missing()) is not None:
        print(f"containers are not tested: {missing}", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory(prefix="duecall-containers-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        make_base(folder)
        tests = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "--durations=0",
            "--durations-min=1",
            "tests/containers",
            *sys.argv[1:],
        ]
        inside = subprocess.Popen(
            [*_IN_NAMESPACES, *_WITH_LOOPBACK, *tests], cwd=ROOT, env={**os.environ, "DUECALL_CONTAINERS": name}
        )
        try:
            return inside.wait()
        finally:
            inside.terminate()
            inside.wait()


if __name__ == "__main__":
    sys.exit(main())
