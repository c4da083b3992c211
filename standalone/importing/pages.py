"""Progress of `duecall import`, its result, and that of a dry run with a histogram of due times. No row is quoted."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from standalone.importing.runs import CheckResult, ImportResult, RefusedRows

# --- Progress on standard error: bars in a terminal, otherwise plain lines


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


# --- Pages: the result of an import, and that of a dry run with a histogram of due times


_MOST_ROWS = 8
"""Numbers of rows that a line shows."""
_MOST_HOURS = 48
_BAR = 40
"""Characters of the longest bar."""


def import_page(result: ImportResult) -> RenderableType:
    """Show the counts of an import, and its errors."""
    page: list[RenderableType] = [Text(f"batch {each}", "dim") for each in result.batch_ids]
    if result.is_awaited:
        cancelled = result.existed_cancelled
        existed = f"existed ({cancelled:,} of them cancelled: no call will be placed)" if cancelled else "existed"
        counts = {"created": result.created, existed: result.existed}
    else:
        counts = {"stored; GET /batches/{id} shows their progress": result.stored}
    refused = sum(each.count for each in result.refused) + result.refused_at_once
    page.append(_counts({**counts, "refused": refused}))
    if result.refused:
        page += [Text(""), _refused(result.refused)]
    if result.existed_cancelled:
        page.append(
            Text(
                "To call these people, delete the interviews and set another --name, or add a column that makes"
            ).append(" the rows different, such as metadata.campaign.")
        )
    if refused and result.was_sent_before:
        page.append(
            Text(
                "An earlier run has sent the same rows, and their errors are those of that run. To have refused rows"
            ).append(" judged again, start the command with another --name.")
        )
    return Group(*page)


def dry_run_page(result: CheckResult) -> RenderableType:
    """Show the result of a dry run of all parts of a file."""
    parts, refused = result.parts, result.refused
    counts = {
        "would create an interview": _sum(parts, "accepted"),
        "exist already, and would create nothing": _sum(parts, "existing"),
        "would be refused": sum(each.count for each in refused),
        "would place a call": _sum(parts, "calls"),
        "call a number that an earlier row calls too": _sum(parts, "repeatedNumbers"),
        "call a number that the company is calling, or has a pending call to": _sum(parts, "numbersWithCalls"),
        "would expire before their turn": _sum(parts, "expired"),
    }
    page: list[RenderableType] = [Text("Dry run: nothing was stored.", "bold"), _counts(counts)]
    if refused:
        page += [Text(""), _refused(refused)]
    page += [Text(""), *_times(parts), *_histogram(parts)]
    return Group(*page)


def _counts(counts: Mapping[str, int]) -> RenderableType:
    table = _table("rows", "")
    for name, count in counts.items():
        table.add_row(f"{count:,}", name)
    return table


def _refused(refused: Sequence[RefusedRows]) -> RenderableType:
    """Show a line for each error: code, field, number and rows, with the message below."""
    table = _table("refused", "code", "field", "rows")
    for each in refused:
        shown = ", ".join(map(str, each.numbers[:_MOST_ROWS]))
        numbers = shown if each.count <= _MOST_ROWS else f"{shown}, …"
        table.add_row(f"{each.count:,}", Group(Text(each.code), Text(each.message, "dim")), each.field or "-", numbers)
    return table


def _times(parts: Sequence[Mapping[str, Any]]) -> Iterator[Text]:
    first = [each["firstDueAt"] for each in parts if each["firstDueAt"] is not None]
    last = [each["lastDueAt"] for each in parts if each["lastDueAt"] is not None]
    starts = [each["lastStartAt"] for each in parts if each["lastStartAt"] is not None]
    waits = sorted({each["waitsFor"] for each in parts if each["waitsFor"] is not None})
    if first:
        yield Text(f"due         {_minute(min(first))} to {_minute(max(last))}")
    if starts:
        # Each part was judged without the others.
        not_before = "not before " if len(parts) > 1 else ""
        yield Text(f"last start  {not_before}{_minute(max(starts))}, at the present pace")
    if waits:
        yield Text(f"waits for   {', '.join(waits)}", "yellow")


def _histogram(parts: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    calls: dict[tuple[str, str], int] = defaultdict(int)
    for part in parts:
        for hour in part["due"]:
            calls[hour["beginsAt"], hour["timezone"]] += hour["calls"]
    if not calls:
        return
    table = _table("due in the hour from", "clock", "calls", "")
    longest = max(calls.values())
    for (begins, zone), count in sorted(calls.items())[:_MOST_HOURS]:
        table.add_row(_minute(begins), zone, f"{count:,}", "█" * max(1, count * _BAR // longest))
    yield Text("")
    yield table
    if len(calls) > _MOST_HOURS:
        yield Text(f"and {len(calls) - _MOST_HOURS} more hours", "dim")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, name in enumerate(columns):
        is_number = name in {"calls", "refused"} or (index == 0 and name == "rows")
        table.add_column(name, justify="right" if is_number else "left")
    return table


def _minute(instant: str) -> str:
    """Format an instant of the API, which is in UTC, to the minute."""
    return f"{instant[:10]} {instant[11:16]} UTC"


def _sum(parts: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(each[name] for each in parts)
