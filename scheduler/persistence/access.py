"""Roles, policies, grants and functions of the migrations, compared with a list in this folder.

`duecall db check` compares the list with the migrations, so that it cannot be out of date.
"""

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from sqlalchemy import text

from scheduler.persistence.errors import WrongDatabase

LIST = Path(__file__).with_name("access.txt")
_SHOWN = 3

FOUND = text("""
    WITH ours AS (
        SELECT oid, relname, relkind, relrowsecurity, relacl, relnamespace FROM pg_class
        WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('companies'))
    ), roles AS (
        SELECT oid, rolname FROM pg_roles WHERE CAST(rolname AS text) ^@ 'duecall_'
    )
    SELECT 'role ' || rolname FROM roles
    UNION ALL
    SELECT 'row-level security of ' || relname FROM ours WHERE relrowsecurity
    UNION ALL
    SELECT 'policy ' || polname || ' on ' || relname || ' for ' || CAST(polcmd AS text) || ' to '
        || (SELECT string_agg(rolname, ', ' ORDER BY rolname) FROM roles WHERE oid = ANY(polroles))
    FROM pg_policy JOIN ours ON ours.oid = polrelid
    UNION ALL
    SELECT 'trigger ' || tgname || ' on ' || relname
    FROM pg_trigger JOIN ours ON ours.oid = tgrelid WHERE NOT tgisinternal
    UNION ALL
    SELECT 'grant ' || privilege_type || ' on ' || relname || ' to ' || rolname
    FROM ours CROSS JOIN LATERAL aclexplode(relacl) JOIN roles ON roles.oid = grantee
    UNION ALL
    SELECT 'grant ' || privilege_type || ' on ' || relname || '.' || attname || ' to ' || rolname
    FROM ours JOIN pg_attribute ON attrelid = ours.oid CROSS JOIN LATERAL aclexplode(attacl)
    JOIN roles ON roles.oid = grantee
    UNION ALL
    SELECT 'function ' || proname || '(' || pg_get_function_identity_arguments(pg_proc.oid) || ')'
    FROM pg_proc WHERE pronamespace IN (SELECT relnamespace FROM ours)
    UNION ALL
    SELECT 'grant ' || privilege_type || ' on function ' || proname || ' to ' || rolname
    FROM pg_proc CROSS JOIN LATERAL aclexplode(proacl) JOIN roles ON roles.oid = grantee
    WHERE pronamespace IN (SELECT relnamespace FROM ours)
    UNION ALL
    SELECT DISTINCT 'grant ' || privilege_type || ' on the schema to ' || rolname
    FROM pg_namespace CROSS JOIN LATERAL aclexplode(nspacl)
    JOIN roles ON roles.oid = grantee OR (grantee = 0 AND privilege_type = 'USAGE')
    WHERE pg_namespace.oid IN (SELECT relnamespace FROM ours)
""")
"""One line for each. Every role of the database may read these catalogs.

USAGE on the schema may be granted to PUBLIC (grantee 0), as in each new database. A migrating role that does not own
the schema `public` cannot grant it to others.
"""


@lru_cache(maxsize=1)
def expected() -> frozenset[str]:
    """Return the lines of a database at this version's schema."""
    return frozenset(LIST.read_text(encoding="utf-8").splitlines())


def refuse_missing(found: Collection[str]) -> None:
    """Raise WrongDatabase, which names what is missing. More than the list is no error."""
    missing = sorted(expected() - frozenset(found))
    if missing:
        more = f", and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise WrongDatabase(
            f"The database lacks what its schema grants: {', '.join(missing[:_SHOWN])}{more}. It was restored without"
            " its roles, or changed by hand. Create the roles with `duecall db logins`, restore the dump once more into"
            " an empty database, and run `duecall db upgrade`."
        )
