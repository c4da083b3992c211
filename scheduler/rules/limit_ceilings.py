"""Ceilings: the highest limits that a company may set for itself."""

from collections.abc import Iterator

from scheduler.domain.company import CallLimits, LimitCeiling
from scheduler.domain.refusals import InvalidFields


def check_limits(wanted: CallLimits, before: CallLimits, ceiling: LimitCeiling) -> None:
    """Raise InvalidFields if a limit is raised above the ceiling. A limit that stays or becomes lower is accepted."""
    above = list(_above(wanted, before, ceiling))
    if above:  # guard: limit_ceiling
        raise InvalidFields(
            f"Some limits are above the ceiling of this company: {', '.join(each['field'] for each in above)}.",
            fields=above,
        )


def _above(wanted: CallLimits, before: CallLimits, ceiling: LimitCeiling) -> Iterator[dict[str, str]]:
    for name, limit, former, most in (
        ("concurrentCalls", wanted.concurrent_calls, before.concurrent_calls, ceiling.concurrent_calls),
        ("callsPerSecond", wanted.calls_per_second, before.calls_per_second, ceiling.calls_per_second),
    ):
        if most is not None and limit > max(most, former):
            yield {
                "field": f"settings.limits.{name}",
                "code": "OUT_OF_RANGE",
                "message": f"This must be at most {most:g}, the ceiling of this company. Operators can raise it.",
            }
