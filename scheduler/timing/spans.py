"""Time spans in words."""

from datetime import timedelta


def span_text(span: timedelta) -> str:
    """Write a span in its two largest units, for example "2 h 59 min"."""
    seconds = span.total_seconds()
    if seconds < 10:  # noqa: PLR2004 - tenths of a second matter below this
        return f"{seconds:.1f} s"
    days, rest = divmod(int(seconds), 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds_left = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds_left, "s")]
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)
