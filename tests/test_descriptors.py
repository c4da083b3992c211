"""The limit of open files: raised at the start of a process, with a warning if it stays low."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from scheduler import process
from scheduler.logs import configure
configure()
process.raise_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE), process.most_posts())
"""


@pytest.mark.parametrize(
    ("soft", "hard", "after", "warns"),
    [
        pytest.param(256, 256, "256 256 192", True, id="a low hard limit"),
        pytest.param(256, 1024, "1024 1024 960", False, id="a low soft limit"),
        pytest.param(1024, 1024, "1024 1024 960", False, id="enough"),
        pytest.param(32, 32, "32 32 1", True, id="fewer than a dial worker keeps"),
    ],
)
def test_limit_is_raised_at_the_start(soft: int, hard: int, after: str, *, warns: bool) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(soft), str(hard)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    assert after in said
    assert ("descriptor_limit_low" in said) is warns
