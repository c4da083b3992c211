"""Progress on standard error: bars in a terminal, otherwise plain lines."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_STEPS = 10
"""Plain lines for each total."""


class _Counted:
    """Rows of one kind of progress."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0

    def add(self, rows: int) -> bool:
        """Add rows. True if a further tenth of the total is done."""
        before = self.done * _STEPS // max(1, self.total)
        self.done += rows
        return self.done * _STEPS // max(1, self.total) > before


class Lines:
    """Plain lines, for logs of scheduled jobs."""

    def __init__(self, console: Console, total: int, first: str, second: str) -> None:
        self._console = console
        self._first, self._second = first, second
        self._sent, self._applied = _Counted(total), _Counted(total)

    def sent(self, rows: int) -> None:
        self._tell(self._first, self._sent, rows)

    def applied(self, rows: int) -> None:
        self._tell(self._second, self._applied, rows)

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _tell(self, word: str, counted: _Counted, rows: int) -> None:
        if counted.add(rows):
            self.note(f"{counted.done:,} of {counted.total:,} rows {word}")


class Bars:
    """One bar for each kind of progress."""

    def __init__(self, progress: Progress, total: int, first: str, second: str) -> None:
        self._progress = progress
        self._sent = progress.add_task(first, total=total)
        self._applied: TaskID | None = progress.add_task(second, total=total) if second else None

    def sent(self, rows: int) -> None:
        self._progress.advance(self._sent, rows)

    def applied(self, rows: int) -> None:
        if self._applied is not None:
            self._progress.advance(self._applied, rows)

    def note(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False)


@contextmanager
def shown_progress(total: int, first: str, second: str) -> Iterator[Lines | Bars]:
    """Show two kinds of progress, named by a word such as `sent`. An empty `second` is not shown."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(console, total, first, second)
        return
    shown = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*shown, console=console) as progress:
        yield Bars(progress, total, first, second)
