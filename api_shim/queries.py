"""Strict query parsing: unknown, repeated and malformed parameters are rejected by name."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, get_args, get_origin

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from scheduler.wire.field_errors import FieldError, refuse_any, unknown_parameter

_DIGITS = re.compile("[0-9]+")
_MOST_NAMED = 20
"""A URL can contain thousands of wrong parameters, and each error adds 150 bytes to the response."""


async def refuse_wrong_query(request: Request) -> None:
    """Check the query of a route that needs no key. Raises InvalidFields.

    On all other routes `auth.principal` does this after authentication.
    """
    check_query(request)


def check_query(request: Request, *, ignored: Collection[str] = ()) -> None:
    """Compare the query with the parameters that the route declares. Raises InvalidFields for every wrong one.

    `ignored` are parameters that this client may send although the route does not read them.
    """
    if request.scope["query_string"]:
        route: APIRoute = request.scope["route"]
        declared = dict(_declared(route.dependant))
        refuse_any(islice(_wrong(request.query_params.multi_items(), declared, ignored), _MOST_NAMED))


def _declared(dependant: Dependant) -> Iterator[tuple[str, Any]]:
    """Yield each declared parameter with its type, including those of dependencies, such as `page`."""
    for field in dependant.query_params:
        yield field.alias, field.field_info.annotation
    for each in dependant.dependencies:
        yield from _declared(each)


def _wrong(
    parameters: Collection[tuple[str, str]], declared: Mapping[str, Any], ignored: Collection[str]
) -> Iterator[FieldError]:
    for name, times in Counter(name for name, _ in parameters if name not in ignored).items():
        if name not in declared:
            yield unknown_parameter(name, sorted(declared))
        elif times > 1 and not _is_list(declared[name]):
            separated = " Separate types by commas." if name == "types" else ""
            yield FieldError(field=name, code="REPEATED_PARAMETER", message=f"Send this parameter once.{separated}")
        # `int` also reads 1_0, +1 and the digits of other scripts.
        elif declared[name] is int and not _DIGITS.fullmatch(dict(parameters)[name]):
            message = "This must be a whole number, written only with the digits 0 to 9."
            yield FieldError(field=name, code="WRONG_TYPE", message=message)


def _is_list(declared: object) -> bool:
    """Return whether a parameter of this type may be repeated, like `list[str] | None`."""
    return get_origin(declared) is list or any(_is_list(each) for each in get_args(declared))
