"""`make containers`: run the tests of this folder with a Docker daemon of their own, in a network of only loopback.

No registry is needed: base images are built from Debian packages and the wheels of the lock files. Every process, mount
and file is inside kernel namespaces (`inside.py`), which end with the run, however it ends.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.conftest import wait_until
from tests.containers.daemon import CGROUP
from tests.containers.release import is_in_this_clone
from tests.support.compose import ROOT

PROGRAMS = ("dockerd", "docker", "debootstrap", "git", "ip", "mount", "openssl", "setpriv", "unshare")
AT_MOST_S = 1800
_IN_NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
_ENDS_WITH_THIS_PROCESS = ["setpriv", "--pdeathsig", "KILL"]


def _missing() -> str | None:
    if os.geteuid() != 0:
        return "it needs root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)} not found; `make debian` installs them"
    plugins = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return None if plugins.returncode == 0 else "docker compose not found; `make debian` installs it"


def main() -> int:
    """Return the exit status: 0 if the machine cannot run containers, except in CI."""
    if (missing := _missing()) is not None:
        print(f"containers are not tested: {missing}", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    if not is_in_this_clone():
        print(
            "WARNING: release 0.1.0 is not in this clone, so no upgrade from it is tested; get the history by"
            " `git fetch --unshallow`",
            file=sys.stderr,
        )
    signal.signal(signal.SIGTERM, _end)
    _remove_cgroups()
    with tempfile.TemporaryDirectory(prefix="duecall-containers-") as folder:
        inside = [sys.executable, "-B", "-m", "tests.containers.inside", folder, *sys.argv[1:]]
        run = subprocess.Popen([*_ENDS_WITH_THIS_PROCESS, *_IN_NAMESPACES, *inside], cwd=ROOT)
        try:
            return run.wait(AT_MOST_S)
        finally:
            run.kill()
            run.wait()
            wait_until(_remove_cgroups, seconds=20, says="the containers have ended")


def _end(*_: object) -> None:
    raise KeyboardInterrupt


def _remove_cgroups() -> bool:
    """Remove the control groups of containers, which belong to no namespace. Return True if none is left."""
    found = [Path(each) for top in Path("/sys/fs/cgroup").glob(f"**/{CGROUP}") for each, _, _ in os.walk(top)]
    for each in reversed(found):
        with suppress(OSError):  # its processes are ending
            each.rmdir()
    return not any(each.exists() for each in found)


if __name__ == "__main__":
    sys.exit(main())
