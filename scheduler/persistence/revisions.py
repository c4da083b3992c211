"""The newest revision of the schema, from the migrations' file names. The API needs no other part of Alembic."""

from pathlib import Path

_VERSIONS = Path(__file__).parent / "migrations" / "versions"


def head() -> str:
    """Return the revision of this version's newest migration."""
    return max(_known())


def is_ready(revision: str | None) -> bool:
    """Return True if this version can work with a database at that revision: its own, or one of a later version."""
    return revision is not None and (revision not in _known() or revision == head())


def _known() -> set[str]:
    return {path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*.py")}
