"""Errors of the database. None of them quotes a value."""


class DatabaseAway(Exception):
    """The database cannot be reached, or the connection broke. Nothing was committed."""


class ClockWrong(DatabaseAway):
    """This machine's clock differs from the database's by more than 2 s, or was set during the transaction.

    Nothing was written. Callers handle it like a database that is away: they try again later. The database logs each
    change once, so no other code needs to.
    """

    def __init__(self) -> None:
        super().__init__("this machine's clock differs from the database's; set it, for example by NTP")


class LockTaken(DatabaseAway):
    """Another transaction holds a row that this one needs. Nothing was written. Try again at once.

    A kind of DatabaseAway only so that a caller that does not try again treats it as a transaction that did not happen.
    """


class StatementFailed(DatabaseAway):
    """The server did not complete a statement: it took too long, exceeded another limit, or met a damaged row.

    Nothing was written. The cause may be the whole database, or only what one item of several needs.
    """


class CommitInDoubt(DatabaseAway):
    """COMMIT was sent and its answer was lost: the transaction was committed, will be, or was not.

    `Database.outcome_of` can tell, for a transaction that was given a `Commit`.
    """


class WrongDatabase(Exception):
    """The database, its settings or the way to it do not fit this release. The message says what to do."""


class WrongRole(WrongDatabase):
    """The database role does not fit this process. No statement was sent with it."""


class SchemaNotReady(WrongDatabase):
    """The database has no schema, or that of an older version."""

    def __init__(self, revision: str | None) -> None:
        found = "no tables" if revision is None else f"the schema {revision} of an older version"
        super().__init__(f"the database has {found}; run `duecall db upgrade` as its owner, then start this process")


class SchemaDrift(Exception):
    """The tables in the code differ from the schema that the migrations make."""


class SchemaNotMade(Exception):
    """The database could not be upgraded to this version's schema. Nothing in it was changed."""


class NoLogin(Exception):
    """A login cannot be set: user or password is missing, or this role may not create roles. Nothing was changed."""
