"""Ids of rows have the layout of RFC 9562, and the order of time."""

from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import and_, or_
from uuid import RFC_4122

from scheduler.ids import new_id

EXAMPLE = datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)
"""The time of the example in RFC 9562, A.6, whose id begins with 017f22e2-79b0-7."""


def test_id_has_the_layout_of_a_uuid_of_version_7() -> None:
    ids = [new_id(EXAMPLE) for _ in range(200)]
    assert {str(each)[:15] for each in ids} == {"017f22e2-79b0-7"}
    assert {(each.version, each.variant) for each in ids} == {(7, RFC_4122)}


def test_all_other_bits_of_an_id_are_random() -> None:
    values = [new_id(EXAMPLE).int for _ in range(200)]
    changing = reduce(or_, values) & ~reduce(and_, values)
    assert changing == (2**12 - 1) << 64 | (2**62 - 1)


def test_ids_are_in_the_order_of_time() -> None:
    ids = [new_id(EXAMPLE + timedelta(microseconds=999) + n * timedelta(milliseconds=1)) for n in range(50)]
    assert sorted(ids) == ids
    assert len({each.int >> 80 for each in ids}) == len(ids)
