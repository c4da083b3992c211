"""Indexes for lists by the time of a change and by the time of a call, and a search that reads less of its index.

Each write of a table waits while its indexes are built, a few seconds for a million rows. Reading goes on.

A search used to look up each three letters of its text. Of an e-mail address most are in every row, and for each of them
PostgreSQL reads a part of its index: 1,130 pages for one of a million candidates. Every third one, and the last one,
contain all letters: 550 pages. Rows that have them elsewhere are sorted out by the text itself.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import text

revision = '0023'
down_revision = '0022'
branch_labels = None
depends_on = None

_CHANGED = ('jobs', 'candidates', 'interviews')


def upgrade() -> None:
    for table in _CHANGED:
        op.create_index(f'ix_{table}_company_id_updated_at', table, ['company_id', 'updated_at'])
    op.create_index(
        'ix_interviews_company_id_scheduled_at',
        'interviews',
        ['company_id', 'scheduled_at'],
        postgresql_where=sa.text('scheduled_at IS NOT NULL'),
    )
    op.create_index(
        'ix_attempts_ended_by_company',
        'attempts',
        ['company_id', 'due_at'],
        postgresql_where=sa.text('ended_at IS NOT NULL'),
    )
    _make_search(
        keys=_EVERY_THIRD_KEY,
        variables='\n            newest integer := 100;\n            found uuid[];',
        first=_LOOK_AT_ENOUGH,
    )


def downgrade() -> None:
    _make_search(
        keys=_KEYS,
        variables='\n            newest integer;\n            found uuid[];',
        first=_LOOK_AT_THE_NEWEST,
    )
    op.drop_index('ix_attempts_ended_by_company', table_name='attempts')
    op.drop_index('ix_interviews_company_id_scheduled_at', table_name='interviews')
    for table in _CHANGED:
        op.drop_index(f'ix_{table}_company_id_updated_at', table_name=table)


_KEYS = 'keys bigint[] := {schema}.candidate_search_keys(searched, part)'
_EVERY_THIRD_KEY = """every bigint[] := {schema}.candidate_search_keys(searched, part);
            keys bigint[] := ARRAY(
                SELECT every[i] FROM generate_subscripts(every, 1) AS i WHERE i % 3 = 1 OR i = cardinality(every)
            )"""
# The first look, at 100 candidates, tells how many contain enough matches, if matches are as frequent everywhere. The
# second one reads half as many again, because they are not.
_LOOK_AT_ENOUGH = """
            FOR look IN 1 .. 2 LOOP
                found := ARRAY(
                    SELECT c.id FROM (
                        SELECT n.id, n.first_name, n.last_name, n.email, n.erased_at FROM {schema}.candidates n
                        WHERE n.company_id = searched ORDER BY n.created_at DESC LIMIT newest
                    ) c
                    WHERE c.erased_at IS NULL
                      AND (strpos(lower(c.first_name || ' ' || c.last_name), lower(part)) > 0
                           OR strpos(lower(c.email), lower(part)) > 0)
                    LIMIT most
                );
                IF cardinality(found) >= most THEN
                    RETURN QUERY SELECT unnest(found);
                    RETURN;
                END IF;
                newest := 150 * most / greatest(cardinality(found), 1);
                EXIT WHEN newest > greatest(20000, 2 * most);
            END LOOP;"""
_LOOK_AT_THE_NEWEST = """
            FOREACH newest IN ARRAY ARRAY[100, 2 * most] LOOP
                found := ARRAY(
                    SELECT c.id FROM (
                        SELECT n.id, n.first_name, n.last_name, n.email, n.erased_at FROM {schema}.candidates n
                        WHERE n.company_id = searched ORDER BY n.created_at DESC LIMIT newest
                    ) c
                    WHERE c.erased_at IS NULL
                      AND (strpos(lower(c.first_name || ' ' || c.last_name), lower(part)) > 0
                           OR strpos(lower(c.email), lower(part)) > 0)
                    LIMIT most
                );
                IF cardinality(found) >= most THEN
                    RETURN QUERY SELECT unnest(found);
                    RETURN;
                END IF;
                EXIT WHEN cardinality(found) < newest / 2;
            END LOOP;"""


def _make_search(*, keys: str, variables: str, first: str) -> None:
    schema = op.get_bind().execute(text('SELECT quote_ident(current_schema())')).scalar_one()
    # Of migrations 0014 and 0017.
    op.execute(f"""
        CREATE OR REPLACE FUNCTION candidates_found(searched uuid, part text, most integer) RETURNS SETOF uuid
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $function$
        DECLARE
            {keys.format(schema=schema)};{variables}
        BEGIN
            IF NOT EXISTS (
                SELECT FROM {schema}.companies c
                WHERE c.id = searched
                  AND (c.id = nullif(current_setting('duecall.company_id', true), '')::uuid
                       OR c.ats_principal_id = nullif(current_setting('duecall.principal_id', true), '')::uuid)
            ) THEN
                RETURN;
            END IF;{first.format(schema=schema)}
            RETURN QUERY EXECUTE
                'SELECT c.id FROM {schema}.candidates c'
                ' WHERE c.company_id = $1 AND c.erased_at IS NULL'
                '   AND (strpos(lower(c.first_name || '' '' || c.last_name), lower($2)) > 0'
                '        OR strpos(lower(c.email), lower($2)) > 0)'
                || CASE WHEN cardinality(keys) > 0 THEN
                '   AND ({schema}.candidate_search_keys(c.company_id, (c.first_name || '' '') || c.last_name) @> $4'
                '        OR {schema}.candidate_search_keys(c.company_id, c.email) @> $4)'
                ELSE '' END
                || ' LIMIT $3'
                USING searched, part, most, keys;
        END
        $function$
    """)
