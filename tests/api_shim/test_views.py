"""Views are filled from attributes of the same name."""

from types import SimpleNamespace

from scheduler.wire.field_types import Wire


class _View(Wire):
    first_name: str
    notes: str = "always this"


def test_attribute_does_not_replace_a_constant_of_a_view() -> None:
    source = SimpleNamespace(first_name="Ada", notes="an attribute that was added later")
    assert _View.view_of(source) == _View(first_name="Ada")
    assert _View.view_of(source, notes="given") == _View(first_name="Ada", notes="given")
