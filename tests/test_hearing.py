"""When a worker is deaf, and when it is only at work, or alone."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.conftest import wait_until

if TYPE_CHECKING:
    from workers.hearing import Hearing

A_MOMENT_S = 0.01


class Doorbell:
    """A ring, and who hears it."""

    def __init__(self) -> None:
        self.rings = 0
        self.heard: Callable[[], None] = lambda: None
        self.is_away = False
        self.deaf = threading.Event()
        self.announced = 0
        self.withdrawn = 0

    def ring(self) -> None:
        self.rings += 1
        if self.is_away:
            raise OSError
        self.heard()

    def announce(self) -> None:
        self.announced += 1
        if self.is_away:
            raise OSError

    def withdraw(self) -> None:
        self.withdrawn += 1
        if self.is_away:
            raise OSError

    def listened_to(self, *, is_full: bool = False) -> "Hearing":
        from workers.hearing import Hearing  # noqa: PLC0415 - it names its broker when it is imported

        return Hearing(
            self.ring,
            is_full=lambda: is_full,
            on_deaf=self.deaf.set,
            announce=self.announce,
            withdraw=self.withdraw,
            every_s=A_MOMENT_S,
            unheard_rings=4,
        )


@pytest.fixture
def bell(broker: None) -> Doorbell:
    return Doorbell()


def rings_on(bell: Doorbell) -> None:
    so_far = bell.rings
    wait_until(lambda: bell.rings > so_far + 20, says="it goes on ringing")


def test_whoever_hears_nothing_of_four_rings_is_deaf(bell: Doorbell) -> None:
    bell.listened_to().start()
    assert bell.deaf.wait(10)
    assert bell.rings == 4


def test_whoever_hears_now_and_then_is_not(bell: Doorbell) -> None:
    hearing = bell.listened_to()
    bell.heard = lambda: hearing.heard() if bell.rings % 3 == 0 else None
    hearing.start()
    rings_on(bell)
    hearing.stop()
    assert not bell.deaf.is_set()


def test_while_redis_takes_no_ring_nobody_is_deaf(bell: Doorbell) -> None:
    bell.is_away = True
    hearing = bell.listened_to()
    hearing.start()
    rings_on(bell)
    assert not bell.deaf.is_set()
    # Whoever does not hear it afterwards is.
    bell.is_away = False
    assert bell.deaf.wait(10)


def test_whoever_has_its_hands_full_is_at_work(bell: Doorbell) -> None:
    hearing = bell.listened_to(is_full=True)
    hearing.start()
    rings_on(bell)
    hearing.stop()
    assert not bell.deaf.is_set()


def test_whoever_is_told_to_stop_judges_no_more(bell: Doorbell) -> None:
    hearing = bell.listened_to()
    hearing.stop()
    hearing.start()
    assert not bell.deaf.wait(20 * A_MOMENT_S)


def test_worker_that_hears_is_announced_again_and_again(bell: Doorbell) -> None:
    hearing = bell.listened_to()
    bell.heard = hearing.heard
    hearing.start()
    wait_until(lambda: bell.announced > 20, says="it goes on announcing")
    before = bell.withdrawn
    hearing.stop()
    hearing.join()
    assert (before, bell.withdrawn) == (0, 1)


def test_worker_that_hears_nothing_is_not_announced_again(bell: Doorbell) -> None:
    bell.listened_to().start()
    assert bell.deaf.wait(10)
    assert bell.announced == 2, "at the start, and before the first ring"
    wait_until(lambda: bell.withdrawn == 1, says="it is withdrawn")


def test_busy_worker_is_announced(bell: Doorbell) -> None:
    hearing = bell.listened_to(is_full=True)
    hearing.start()
    wait_until(lambda: bell.announced > 20, says="it goes on announcing")
    hearing.stop()


def test_worker_goes_on_announcing_after_redis_was_away(bell: Doorbell) -> None:
    bell.is_away = True
    hearing = bell.listened_to()
    bell.heard = hearing.heard
    hearing.start()
    rings_on(bell)
    before = bell.announced
    bell.is_away = False
    wait_until(lambda: bell.announced > before + 20, says="it goes on announcing")
    bell.is_away = True
    hearing.stop()
    hearing.join()
    assert bell.withdrawn == 1
