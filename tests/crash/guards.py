"""Does a test notice when a guard is gone? Takes out one guard after the other in a copy of the tree.

A guard is a line that ends in `guard: NAME`. Run by `make guards`: prints a line a guard and exits 1 when one of them
can be taken out without a test turning red, or when the tests are red with all of them in place.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
GUARD = re.compile(r"(?:--|#) guard: (\w+)$")
TESTS = ("tests/use_cases", "-x", "-q", "-k", "guard")


def guards() -> Iterator[tuple[str, Path, int]]:
    """Name, file and line of each guard."""
    for path in sorted((ROOT / "scheduler").rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            if found := GUARD.search(line):
                yield found[1], path.relative_to(ROOT), number


def is_green(tree: Path) -> bool:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *TESTS],
        cwd=tree,
        # The package that is installed is the original; the copy must win.
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return ran.returncode == 0


def without(tree: Path, path: Path, number: int) -> str:
    """Take the line out of the copy; its text before."""
    file = tree / path
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    del lines[number]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return text


def main() -> int:
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "copy"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".venv", ".duecall", ".git", "*_cache"))
        if not is_green(tree):
            print("the guards' tests are red with every guard in place")
            return 1
        for name, path, number in guards():
            before = without(tree, path, number)
            killed = not is_green(tree)
            (tree / path).write_text(before, encoding="utf-8")
            print(f"{name:12} {path}:{number + 1}  {'a test turned red' if killed else 'SURVIVED'}", flush=True)
            if not killed:
                survivors.append(name)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
