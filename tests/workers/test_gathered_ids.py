"""Ids that arrive while others are being processed are processed together, each once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

from tests.conftest import wait_until
from workers.hints import GatheredIds

IN_TIME_S = 60.0


class Processor:
    """Holds each batch until it is released."""

    def __init__(self) -> None:
        self.batches: list[list[UUID]] = []
        self.started = threading.Semaphore(0)
        self.released = threading.Semaphore(0)

    def process(self, batch: list[UUID]) -> None:
        self.batches.append(batch)
        self.started.release()
        assert self.released.acquire(timeout=IN_TIME_S)


class FailsFirst(Processor):
    def process(self, batch: list[UUID]) -> None:
        super().process(batch)
        if len(self.batches) == 1:
            raise ZeroDivisionError


def test_ids_that_arrive_meanwhile_are_one_batch() -> None:
    processor = Processor()
    gathered = GatheredIds(processor.process, at_a_time=1, largest=3)
    first, *others = (uuid4() for _ in range(6))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(gathered.take, [first])
        assert processor.started.acquire(timeout=IN_TIME_S)
        for each in (*others, others[0]):
            gathered.take([each])  # returns at once: the first thread takes them
        processor.released.release(3)
        running.result(IN_TIME_S)
    assert processor.batches == [[first], others[:3], others[3:]]


def test_full_process_takes_no_further_ids() -> None:
    processor = Processor()
    gathered = GatheredIds(processor.process, at_a_time=1, largest=1)
    first, *others, last = (uuid4() for _ in range(6))
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(gathered.take, [first])
        assert processor.started.acquire(timeout=IN_TIME_S)
        gathered.take(others)
        waiting = pool.submit(gathered.take, [last])
        processor.released.release()
        assert processor.started.acquire(timeout=IN_TIME_S)
        waiting.result(IN_TIME_S)  # there is room since the second batch began
        processor.released.release(5)
        running.result(IN_TIME_S)
    assert processor.batches == [[each] for each in (first, *others, last)]


def test_process_with_a_patient_thread_is_full_too() -> None:
    processor = Processor()
    gathered = GatheredIds(processor.process, at_a_time=2, largest=1, held_up_s=IN_TIME_S)
    first, *others, last = (uuid4() for _ in range(6))
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(gathered.take, [first])]
        assert processor.started.acquire(timeout=IN_TIME_S)
        running += [pool.submit(gathered.take, others)]
        wait_until(lambda: len(gathered._waiting) == 4, says="the others wait")
        assert not gathered._has_room()
        running += [pool.submit(gathered.take, [last])]
        processor.released.release()
        assert processor.started.acquire(timeout=IN_TIME_S)
        assert processor.batches == [[first], others[:1]]
        processor.released.release(5)
        for each in running:
            each.result(IN_TIME_S)
    assert processor.batches == [[each] for each in (first, *others, last)]


def test_another_thread_begins_while_one_is_held_up() -> None:
    processor = Processor()
    gathered = GatheredIds(processor.process, at_a_time=2, largest=3)
    ids = [uuid4(), uuid4()]
    with ThreadPoolExecutor(2) as pool:
        running = []
        for each in ids:  # the second one after the first one has begun, which would take both
            running.append(pool.submit(gathered.take, [each]))
            assert processor.started.acquire(timeout=IN_TIME_S)
        processor.released.release(2)
        for done in running:
            done.result(IN_TIME_S)
    assert processor.batches == [[each] for each in ids]


def test_second_thread_leaves_its_ids_to_one_that_goes_on() -> None:
    processor = Processor()
    gathered = GatheredIds(processor.process, at_a_time=2, largest=3, held_up_s=IN_TIME_S)
    ids = [uuid4() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(gathered.take, ids[:1])]
        assert processor.started.acquire(timeout=IN_TIME_S)
        running += [pool.submit(gathered.take, [each]) for each in ids[1:]]
        wait_until(lambda: len(gathered._waiting) == 2, says="both ids wait")
        processor.released.release(2)
        for each in running:
            each.result(IN_TIME_S)
    assert [sorted(batch) for batch in processor.batches] == [ids[:1], sorted(ids[1:])]


def test_error_ends_only_its_own_batch() -> None:
    failing, batches = [True], list[list[UUID]]()

    def process(batch: list[UUID]) -> None:
        if failing.pop():
            raise ZeroDivisionError
        batches.append(batch)

    gathered = GatheredIds(process, at_a_time=1, largest=3)
    with pytest.raises(ZeroDivisionError):
        gathered.take([uuid4()])
    failing.append(False)
    second = uuid4()
    gathered.take([second])
    assert batches == [[second]]


def test_ids_that_wait_during_an_error_stay_until_the_next_take() -> None:
    processor = FailsFirst()
    gathered = GatheredIds(processor.process, at_a_time=1, largest=3)
    first, *waiting, last = (uuid4() for _ in range(4))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(gathered.take, [first])
        assert processor.started.acquire(timeout=IN_TIME_S)
        gathered.take(waiting)
        processor.released.release(2)
        with pytest.raises(ZeroDivisionError):
            running.result(IN_TIME_S)
    assert processor.batches == [[first]], "the thread takes no further batch"
    gathered.take([last])
    assert processor.batches == [[first], [*waiting, last]], "without the id of the failed batch"


def test_error_makes_room_for_a_waiting_thread() -> None:
    processor = FailsFirst()
    gathered = GatheredIds(processor.process, at_a_time=1, largest=1)
    first, *others, last = (uuid4() for _ in range(6))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(gathered.take, [first])
        assert processor.started.acquire(timeout=IN_TIME_S)
        gathered.take(others)
        waiting = threading.Thread(target=gathered.take, args=([last],), daemon=True)
        waiting.start()
        processor.released.release(6)
        with pytest.raises(ZeroDivisionError):
            running.result(IN_TIME_S)
    waiting.join(IN_TIME_S)
    assert processor.batches == [[each] for each in (first, *others, last)]
