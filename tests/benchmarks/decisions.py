"""Cost of a decision, from a phone number and a text to the next opening. Run by `make bench`.

Each number is used once, as in production. Only the weeks of clocks and the metadata of countries are cached between
decisions, never results. The first part measures thousands of decisions in one process. The second part measures the
first decision of new processes, which also reads a country's metadata. The ratios compare with `phonenumbers` alone,
one `parse` and one `is_valid_number` of the same numbers in the same run: a decision cannot take less. All times are
CPU times, so that other load on the machine has little influence.
"""

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

import phonenumbers

from scheduler.domain.company import DEFAULT_INTERVALS
from scheduler.timing import call_windows, callee_zones, requested_time

SEED = 20_261_125
NUMBERS = 5_000
FIRST_DECISIONS = 15
NOW = datetime(2026, 4, 2, 12, 0, tzinfo=UTC)
ROOM = timedelta(seconds=35)
BAR_US = 150
BAR_MANY_ZONES_US = 1_000

SLOVAK = "+421915123456"
AMERICAN = "+12125551234"
TOLL_FREE = "+18004633339"
AUSTRALIAN = "+61412345678"


def decide(number: str, text: str) -> datetime | None:
    requested = requested_time.read(text)
    callee = callee_zones.read_number(number)
    clock = callee_zones.deciding_clock(requested, candidate_zone=None, number=callee, company_zone="Europe/Bratislava")
    if len(clock.zones) > 1:
        call_windows.common_minutes(clock, DEFAULT_INTERVALS, NOW)
    instant = call_windows.resolve(requested, clock)
    return call_windows.next_open(clock, DEFAULT_INTERVALS, instant, room=ROOM)


def parse_and_validate(number: str) -> None:
    phonenumbers.is_valid_number(phonenumbers.parse(number))


# --- distinct numbers


def alike(example: str, dice: random.Random) -> Iterator[str]:
    """Yield valid numbers that differ from `example` in their last four digits, from a limited number of tries."""
    for _ in range(20 * NUMBERS):
        number = f"{example[:-4]}{dice.randrange(10_000):04}"
        if phonenumbers.is_valid_number(phonenumbers.parse(number)):
            yield number


def toll_free(dice: random.Random) -> Iterator[str]:
    while True:
        yield f"+1800{dice.randrange(2, 10)}{dice.randrange(1_000_000):06}"


def of_the_world(dice: random.Random) -> Iterator[str]:
    """Yield mobiles and fixed lines, from country to country."""
    kinds = (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE)
    examples = [
        phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
        for region in sorted(phonenumbers.SUPPORTED_REGIONS)
        for kind in kinds
        if (example := phonenumbers.example_number_for_type(region, kind)) is not None
    ]
    sources = [alike(example, dice) for example in examples]
    while True:
        for source in dice.sample(sources, len(sources)):
            yield from islice(source, 1)


def distinct(numbers: Iterator[str]) -> list[str]:
    return list(islice(dict.fromkeys(islice(numbers, 2 * NUMBERS)), NUMBERS))


def texts(count: int, dice: random.Random) -> list[str]:
    written = [NOW + timedelta(seconds=dice.randrange(30 * 86_400)) for _ in range(count)]
    return [f"{instant:%Y-%m-%dT%H:%M:%S}Z" for instant in written]


# --- measuring


def microseconds(act: Callable[..., object], *arguments: Sequence[str]) -> list[float]:
    taken = []
    for each in zip(*arguments, strict=True):
        begun = time.thread_time_ns()
        act(*each)
        taken.append((time.thread_time_ns() - begun) / 1_000)
    return taken


def first_in_a_new_process(what: str, number: str) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.decisions", what, number]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def head(title: str) -> None:
    print(f"\n  {title:<52}{'median':>8}{'p99':>8}{'phonenumbers':>14}{'ratio':>7}")


def row(name: str, taken: Sequence[float], baseline: Sequence[float], bar: float, *, beside: bool = False) -> None:
    """Print one line. With `beside`, the limit applies to the time in addition to that of phonenumbers alone."""
    median, alone = statistics.median(taken), statistics.median(baseline)
    p99 = statistics.quantiles(taken, n=100, method="inclusive")[98]
    judged = median - alone if beside else median
    part, result = "in addition" if beside else "in total", "kept" if judged <= bar else "MISSED"
    verdict = f"  {judged:>5.0f} {part}, limit {bar:.0f}: {result}"
    print(f"  {name:<52}{median:>8.0f}{p99:>8.0f}{alone:>14.0f}{median / alone:>7.1f}{verdict}")


MANY: tuple[tuple[str, Callable[[random.Random], Iterator[str]], float], ...] = (
    ("the world, from country to country", of_the_world, BAR_US),
    ("Slovak mobiles, one zone", lambda dice: alike(SLOVAK, dice), BAR_US),
    ("an American area code, one zone", lambda dice: alike(AMERICAN, dice), BAR_US),
    ("Australian mobiles, five zones", lambda dice: alike(AUSTRALIAN, dice), BAR_US),
    ("American toll-free, 58 zones", toll_free, BAR_MANY_ZONES_US),
)
FIRST = (("a Slovak mobile", SLOVAK), ("an American area code", AMERICAN), ("American toll-free, 58 zones", TOLL_FREE))


def main() -> None:
    dice = random.Random(SEED)
    head(f"us per decision ({NUMBERS} numbers, used once each)")
    for name, numbers, bar in MANY:
        chosen = distinct(numbers(dice))
        baseline = microseconds(parse_and_validate, chosen)
        row(name, microseconds(decide, chosen, texts(len(chosen), dice)), baseline, bar)
    head(f"us for the first decision of a process ({FIRST_DECISIONS} processes)")
    for name, number in FIRST:
        pairs = [
            (first_in_a_new_process("parse", number), first_in_a_new_process("decide", number))
            for _ in range(FIRST_DECISIONS)
        ]
        row(name, [taken for _, taken in pairs], [alone for alone, _ in pairs], BAR_MANY_ZONES_US, beside=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["parse", number]:
            print(microseconds(parse_and_validate, [number])[0])
        case ["decide", number]:
            print(microseconds(decide, [number], ["2026-04-07T22:00Z"])[0])
