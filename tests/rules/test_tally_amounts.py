"""Tallies: the sum of amounts is the same in any order and in any groups, and each value is in one bucket."""

from datetime import timedelta
from functools import reduce
from operator import add

from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.call import Accepted, AnswerUnknown, CarrierAnswer, NeverTaken, NumberRefused
from scheduler.rules.tallies import (
    CALLS,
    CARRIER_ANSWER,
    DIAL_LATENESS,
    HTTP_REQUESTS,
    OTHER,
    TALLIES,
    Amount,
    Key,
    Sent,
    folded,
    key_of,
    labels_of,
    of_post,
    seconds_of,
)

WHOLE = st.integers(0, 2**40)
KEYS = st.sampled_from([("a", ""), ("a", "b"), ("b", "c\td")])
# Whole seconds: sums of floats differ in their last bits by order, sums of these do not.
AMOUNTS = st.builds(Amount, n=WHOLE, seconds=WHOLE.map(float), buckets=st.lists(WHOLE, max_size=4).map(tuple))
PARTS = st.lists(st.tuples(KEYS, AMOUNTS), max_size=12)


@given(PARTS, st.data())
def test_folding_in_any_order_and_groups_gives_the_sum(parts: list[tuple[Key, Amount]], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(parts))
    cut = data.draw(st.integers(0, len(parts)))
    in_groups = folded([*folded(shuffled[:cut]).items(), *folded(shuffled[cut:]).items()])
    assert in_groups == folded(parts)
    for key, amount in folded(parts).items():
        mine = [each for name, each in parts if name == key]
        assert amount.n == sum(each.n for each in mine)
        assert amount.seconds == sum(each.seconds for each in mine)
        assert sum(amount.buckets) == sum(sum(each.buckets) for each in mine)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([each for each in TALLIES if each.bounds]))
def test_bucket_counts_values_up_to_its_bound(values: list[float], tally: object) -> None:
    assert tally in TALLIES
    histogram = next(each for each in TALLIES if each == tally)
    total = reduce(add, (seconds_of(histogram, value) for value in values))
    assert (total.n, len(total.buckets)) == (len(values), len(histogram.bounds) + 1)
    for place, bound in enumerate(histogram.bounds):
        assert sum(total.buckets[: place + 1]) == sum(value <= bound for value in values)


def test_value_before_its_time_counts_as_zero() -> None:
    assert seconds_of(DIAL_LATENESS, timedelta(seconds=-1)) == seconds_of(DIAL_LATENESS, 0.0)


def test_unknown_label_counts_as_other() -> None:
    assert labels_of(key_of(CALLS, "BUSY")) == ("BUSY",)
    assert labels_of(key_of(CALLS, "a caller's text")) == (OTHER,)


def test_labels_are_read_as_they_were_written() -> None:
    assert labels_of(key_of(HTTP_REQUESTS, "GET /interviews", "200")) == ("GET /interviews", "200")
    assert labels_of(key_of(DIAL_LATENESS)) == ()


def test_each_answer_of_the_carrier_has_a_class() -> None:
    answers: dict[str, CarrierAnswer] = {
        "accepted": Accepted(call_sid="CA1"),
        "refused": NeverTaken(cause="HTTP_400"),
        "number_refused": NumberRefused(cause="NUMBER"),
        "unknown": AnswerUnknown(cause="TIMEOUT"),
    }
    assert CARRIER_ANSWER.known == tuple(answers)
    for name, answer in answers.items():
        assert (CARRIER_ANSWER.name, name) in of_post(answer, Sent(lateness=timedelta(), answered_after=0.1))


def test_histogram_bounds_increase_and_names_are_unique() -> None:
    assert len({each.name for each in TALLIES}) == len(TALLIES)
    assert all(list(each.bounds) == sorted(set(each.bounds)) for each in TALLIES)
