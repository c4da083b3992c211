"""The JSON form of the times of machine detection, in the carrier's units."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from scheduler.domain.call import DetectionTuning

_SECOND, _MILLISECOND = timedelta(seconds=1), timedelta(milliseconds=1)
_FORM: Mapping[str, tuple[str, timedelta]] = {
    "timeout": ("timeout", _SECOND),
    "speech_threshold": ("speechThreshold", _MILLISECOND),
    "speech_end_threshold": ("speechEndThreshold", _MILLISECOND),
    "silence_timeout": ("silenceTimeout", _MILLISECOND),
}
"""By field: its name in JSON, and its unit."""


def tuning_from_json(form: Mapping[str, int | None]) -> DetectionTuning:
    """Read the JSON form, whose values are within the carrier's ranges. A missing or null value is its default."""
    times = {field: (form.get(name), unit) for field, (name, unit) in _FORM.items()}
    return DetectionTuning(**{field: value * unit for field, (value, unit) in times.items() if value is not None})


def tuning_as_json(tuning: DetectionTuning) -> dict[str, Any]:
    """Build the JSON form that `tuning_from_json` reads, with null for the carrier's defaults."""
    times = ((name, getattr(tuning, field), unit) for field, (name, unit) in _FORM.items())
    return {name: None if time is None else time // unit for name, time, unit in times}
