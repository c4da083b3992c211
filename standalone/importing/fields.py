"""Fields of an item, and the columns of a file that contain them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from standalone.importing.files import UnreadableFile

Path = tuple[str, ...]
"""Names from the outermost to the field: `("candidate", "phoneNumber")`."""
Columns = Mapping[str, Path]
"""The field of each column."""

_OF_A_PERSON = ("firstName", "lastName", "phoneNumber", "email", "gdprExpiryDate", "timezone")
_OF_AN_INTERVIEW = ("externalId", "candidateId", "agentId", "jobId", "scheduledAt", "expiresAt", "isTest")
REJECT_COLUMNS = ("errorCode", "errorMessage", "errorField")
"""The last columns of the file of errors. An import of this file ignores them."""
_NAMES = ", ".join((*_OF_A_PERSON, *_OF_AN_INTERVIEW, "candidate.externalId or metadata.NAME"))
_NAME = re.compile(r"[A-Za-z][A-Za-z_. -]{0,39}")
_SEPARATORS = re.compile(r"[\s_-]+")


def _plain(name: str) -> str:
    return _SEPARATORS.sub("", name).casefold()


_KNOWN: Mapping[str, Path] = {
    **{_plain(name): ("candidate", name) for name in _OF_A_PERSON},
    **{_plain(name): (name,) for name in _OF_AN_INTERVIEW},
}
_OF_CANDIDATE: Mapping[str, Path] = {
    _plain(name): ("candidate", name) for name in (*_OF_A_PERSON, "externalId", "jobId")
}


def field_of(name: str) -> Path | None:
    """Return the field that a column's name means, whatever its case, spaces, underscores and hyphens."""
    parent, dot, rest = name.strip().partition(".")
    if not dot:
        return _KNOWN.get(_plain(parent))
    if _plain(parent) == "metadata" and rest:
        return "metadata", rest
    return _OF_CANDIDATE.get(_plain(rest)) if _plain(parent) == "candidate" else None


def chosen(pairs: Iterable[str]) -> dict[str, Path]:
    """Read values of --map, such as `phoneNumber=Telefon`, to fields by column. Raises UnreadableFile."""
    columns: dict[str, Path] = {}
    for pair in pairs:
        name, _, column = pair.partition("=")
        path = field_of(name)
        if not column.strip():
            raise UnreadableFile(f"--map must be FIELD=COLUMN. FIELD is one of {_NAMES}.")
        if path is None:
            # Not quoted unless it looks like a name: the two may be mixed up, and columns are texts of the file.
            what = f"{name} is no field" if _NAME.fullmatch(name) else "This is no field"
            raise UnreadableFile(f"--map: {what}. FIELD is one of {_NAMES}.")
        if column.strip() in columns:
            raise UnreadableFile("--map names one column twice. A column has one field.")
        columns[column.strip()] = path
    return columns


def of_header(header: tuple[str, ...], by_option: Columns, *, ignores_others: bool) -> Columns:
    """Return the field of each column. Raises UnreadableFile for a column without a field.

    Messages name columns by number: the first row of a file without a header is a person.
    """
    repeated = [number for number, name in enumerate(header, 1) if name and header.count(name) > 1]
    if repeated:
        raise UnreadableFile(f"Columns {_listed(repeated)} have the same name. Rename one of them.")
    missing = [".".join(path) for column, path in by_option.items() if column not in header]
    if missing:
        raise UnreadableFile(f"The header has no such column as --map names for {', '.join(missing)}.")
    set_by_option = set(by_option.values())
    columns = dict(by_option)
    for name in header:
        path = field_of(name)
        if name not in columns and path is not None and path not in set_by_option:
            columns[name] = path
    if not columns:
        raise UnreadableFile("Row 1 names no known field. It must be the header. Set --map for other names.")
    _refuse_repeated_fields(header, columns)
    others = [number for number, name in enumerate(header, 1) if name not in columns and name not in REJECT_COLUMNS]
    if others and not ignores_others:
        raise UnreadableFile(
            f"Column {_listed(others)} of the header is no known field. Use --map FIELD=COLUMN,"
            " or --ignore-other-columns to leave out such columns."
        )
    return columns


def _refuse_repeated_fields(header: tuple[str, ...], columns: Columns) -> None:
    for path, count in Counter(columns.values()).items():
        if count > 1:
            numbers = [number for number, name in enumerate(header, 1) if columns.get(name) == path]
            raise UnreadableFile(
                f"Columns {_listed(numbers)} are both {path[-1]}. Choose one with --map, and rename the others."
            )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
