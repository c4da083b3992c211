"""The newest revision of the schema, from the migrations' file names. The API needs no other part of Alembic."""

from pathlib import Path

_VERSIONS = Path(__file__).parent / "migrations" / "versions"


def head() -> str:
    """Return the revision of this version's newest migration."""
    return max(_VERSIONS.glob("[0-9]*.py")).name.partition("_")[0]
