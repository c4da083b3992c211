"""Steps that migrations share: statements, functions with their callers, and roles, which belong to the server."""

from collections.abc import Mapping, Sequence

from alembic import op
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from scheduler.persistence.errors import SchemaNotMade

_EXISTS = "42710"


def schema() -> str:
    return str(op.get_bind().execute(text("SELECT quote_ident(current_schema())")).scalar_one())


def execute(*scripts: str) -> None:
    """Execute the statements of each script, which semicolons at the ends of lines separate."""
    for script in scripts:
        for statement in script.split(";\n"):
            op.execute(statement)


def make_functions(made: Mapping[str, tuple[str, str]]) -> None:
    """Make functions, by their signatures, and let only the named roles call each."""
    for function, (roles, statement) in made.items():
        op.execute(statement.replace("{schema}", schema()))
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {roles}")


def make_roles(roles: Sequence[str], counting: Sequence[str]) -> None:
    """Make missing roles, and let `counting` turn into the counting role. Another database may have done so already.

    They inherit nothing, so that each counts over all companies only when it says so.
    """
    bind = op.get_bind()
    has_set = bind.execute(text("SELECT current_setting('server_version_num')::int >= 160000")).scalar_one()
    existing = set(bind.execute(text("SELECT rolname FROM pg_roles")).scalars())
    creations = [f"CREATE ROLE {role} NOLOGIN NOINHERIT" for role in roles if role not in existing]
    grants = {role: f"GRANT duecall_counter TO {role}" for role in counting}
    _run(creations, [*creations, *grants.values()])
    may = text("SELECT pg_has_role(oid, 'duecall_counter', :may) FROM pg_roles WHERE quote_ident(rolname) = :role")
    missing = [
        grant
        for role, grant in grants.items()
        if not bind.execute(may, {"role": role, "may": "SET" if has_set else "MEMBER"}).scalar_one()
    ]
    _run(missing, missing)


def me() -> str:
    """The role that migrates, quoted."""
    return str(op.get_bind().execute(text("SELECT quote_ident(current_user)")).scalar_one())


def _run(statements: Sequence[str], needed: Sequence[str]) -> None:
    bind = op.get_bind()
    for statement in statements:
        try:
            with bind.begin_nested():
                bind.execute(text(statement))
        except IntegrityError:
            continue  # another database of this server made it at this moment
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) == _EXISTS:
                continue
            raise SchemaNotMade(
                "the role that migrates may not make roles. Have a superuser run this once, then try again:"
                f" {'; '.join(needed)};"
            ) from error
