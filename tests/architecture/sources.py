"""Source files of the product, each read and parsed once for all tests of this folder."""

import ast
import gc
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("scheduler", "workers", "api_shim", "console", "standalone", "command_line")
PRODUCT = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py") if "versions" not in path.parts)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def module(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a module, in the order of `ast.walk`."""
    found = tuple(ast.walk(module(path)))
    gc.freeze()  # otherwise each garbage collection looks at the nodes of all modules
    return found
