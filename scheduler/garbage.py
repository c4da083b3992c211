"""Garbage collection of the processes that handle calls."""

import gc

_NEW_OBJECTS = 10_000
"""Python's own number is 700, which a busy process reaches about ten times a second."""


def collect_rarely() -> None:
    """Collect garbage after 10,000 new objects, and leave out all objects of now. Call once, at the end of the start.

    Nearly all objects are freed without a collection. So a collection mostly walks those of requests in progress.
    """
    gc.collect()
    gc.freeze()
    _, second, third = gc.get_threshold()
    gc.set_threshold(_NEW_OBJECTS, second, third)
