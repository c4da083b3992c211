"""Functions of migration 0034, each with the roles that may call it. All but the first have the rights of their owner.

Names are looked up when a function in SQL is made, so that no other table can replace the one that is meant.
"""

_API, _WORKER, _OPERATOR = "duecall_api", "duecall_worker", "duecall_operator"


def _atomic(roles: str, head: str, body: str, kind: str = "STABLE") -> tuple[str, str]:
    """Build a function of one statement, which is parsed when it is made."""
    made = f"""
        CREATE FUNCTION {head}
        LANGUAGE sql {kind} SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        BEGIN ATOMIC
            {body};
        END
    """
    return roles, made


SEARCH = {
    # Every role that writes candidates calls it, and so does the owner of the table, for CREATE INDEX and ANALYZE. It
    # reads no table, and has only the caller's rights. PL/pgSQL takes a quarter of the time of a function in SQL.
    #
    # Every key contains the company. An index by pg_trgm has one entry for the letters "nov" of all companies: the time
    # of a search would reveal the names that other companies have. This is so with `company_id` as another column of
    # that index, too, because a GIN index has separate entries for each column.
    "candidate_search_keys(uuid, text)": (
        "PUBLIC",
        """
        CREATE FUNCTION candidate_search_keys(company uuid, content text) RETURNS bigint[]
        LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
        AS $function$
        DECLARE
            letters text := lower(content);
            seed bigint := uuid_hash_extended(company, 0);
            keys bigint[] := '{}';
        BEGIN
            FOR i IN 1 .. length(letters) - 2 LOOP
                keys[i] := hashtextextended(substr(letters, i, 3), seed);
            END LOOP;
            RETURN keys;
        END
        $function$
        """,
    ),
    # Row-level security keeps the API's role from the index of a search: PostgreSQL evaluates a policy before an
    # operator that could reveal what it compares, such as LIKE. So this function searches, after the same check of the
    # principal. It returns ids only, and the policies still apply to the query that reads the rows.
    #
    # Every third key of a text, and the last one, contain all letters, and read half of the index that all keys read.
    # Rows that have them elsewhere are sorted out by the text itself. One or two letters have no keys: an empty array
    # would read the whole index, with the entries of all companies. The search is dynamic, so that each is planned for
    # its own keys.
    #
    # For a frequent name, comparing the newest candidates is faster. The first look, at 100 candidates, tells how many
    # contain enough matches, if matches are as frequent everywhere. The second one reads half as many again, because
    # they are not. Both may only find enough rows. If they do not, the index decides.
    "candidates_found(uuid, text, integer)": (
        f"{_API}, {_WORKER}",
        """
        CREATE FUNCTION candidates_found(searched uuid, part text, most integer) RETURNS SETOF uuid
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $function$
        DECLARE
            every bigint[] := {schema}.candidate_search_keys(searched, part);
            keys bigint[] := ARRAY(
                SELECT every[i] FROM generate_subscripts(every, 1) AS i WHERE i % 3 = 1 OR i = cardinality(every)
            );
            newest integer := 100;
            found uuid[];
        BEGIN
            IF NOT EXISTS (
                SELECT FROM {schema}.companies c
                WHERE c.id = searched
                  AND (c.id = nullif(current_setting('duecall.company_id', true), '')::uuid
                       OR c.ats_principal_id = nullif(current_setting('duecall.principal_id', true), '')::uuid)
            ) THEN
                RETURN;
            END IF;
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
            END LOOP;
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
        """,
    ),
}

EVENTS = {
    # Companies have events only while they have a reader, and a role that writes one may not see the keys and webhooks
    # of others. It looks in one table after the other: most companies need three small queries, and one query over all
    # tables costs twice as much, because each execution opens all of them. In PL/pgSQL, which keeps its plans: a
    # function in SQL is planned again for each statement.
    "has_reader(uuid)": (
        f"{_API}, {_WORKER}, {_OPERATOR}",
        """
        CREATE FUNCTION has_reader(company uuid) RETURNS boolean
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $function$
        DECLARE
            ats uuid;
        BEGIN
            SELECT c.ats_principal_id INTO ats FROM {schema}.companies c WHERE c.id = company AND c.deleted_at IS NULL;
            IF NOT FOUND THEN
                RETURN false;
            END IF;
            PERFORM FROM {schema}.api_keys k
            WHERE k.company_id = company AND k.revoked_at IS NULL AND 'read:webhooks' = ANY (k.scopes);
            IF FOUND THEN
                RETURN true;
            END IF;
            PERFORM FROM {schema}.webhook_endpoints w WHERE w.company_id = company AND w.disabled_at IS NULL;
            IF FOUND THEN
                RETURN true;
            END IF;
            IF ats IS NULL THEN
                RETURN false;
            END IF;
            PERFORM FROM {schema}.api_keys k
            WHERE k.principal_id = ats AND k.revoked_at IS NULL AND 'read:webhooks' = ANY (k.scopes);
            IF FOUND THEN
                RETURN true;
            END IF;
            PERFORM FROM {schema}.webhook_endpoints w
            WHERE w.principal_id = ats AND w.company_id IS NULL AND w.disabled_at IS NULL;
            RETURN FOUND;
        END
        $function$
        """,
    ),
    # A function, because the driver parses a statement above 4 kB again for each execution. Parsed once: the companies
    # are found by the rows themselves, and by their index.
    "kept_events(json)": (
        f"{_API}, {_WORKER}, {_OPERATOR}",
        """
        CREATE FUNCTION kept_events(noted json) RETURNS TABLE (
            id uuid, company_id uuid, ats_principal_id uuid, interview_id uuid, attempt_id uuid,
            type text, occurred_at timestamptz, data jsonb
        )
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $function$
        #variable_conflict use_column
        BEGIN
            RETURN QUERY
            WITH given AS MATERIALIZED (
                SELECT * FROM ROWS FROM (
                    json_to_recordset(noted) AS (
                        id uuid, company_id uuid, interview_id uuid, attempt_id uuid, type text,
                        occurred_at timestamptz, data jsonb
                    )
                ) WITH ORDINALITY AS e (id, company_id, interview_id, attempt_id, type, occurred_at, data, nth)
            ), readers AS MATERIALIZED (
                SELECT c.id, c.ats_principal_id
                FROM {schema}.companies c
                WHERE c.id = ANY (ARRAY (SELECT DISTINCT g.company_id FROM given g)) AND {schema}.has_reader(c.id)
            )
            SELECT g.id, g.company_id, r.ats_principal_id, g.interview_id, g.attempt_id, g.type, g.occurred_at, g.data
            FROM given g
            JOIN readers r ON r.id = g.company_id
            ORDER BY g.nth;
        END
        $function$
        """,
    ),
    # The places between which lie all events that occurred in a period. Both are outside of it. Found by two ids, which
    # begin with the time. A function, because a policy would search the events of one company for them, and a company
    # may have no event near that time. Not by pings: they get their places at once, also while older events wait.
    "event_places(uuid, uuid)": (
        f"{_API}, {_WORKER}, {_OPERATOR}",
        """
        CREATE FUNCTION event_places(since uuid, until uuid, OUT after bigint, OUT before bigint)
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $function$
            SELECT coalesce((SELECT e.place FROM {schema}.events e WHERE e.id < since AND e.place IS NOT NULL AND e.type <> 'ping'
                             ORDER BY e.id DESC LIMIT 1), 0),
                   coalesce((SELECT e.place FROM {schema}.events e WHERE e.id >= until AND e.place IS NOT NULL AND e.type <> 'ping'
                             ORDER BY e.id LIMIT 1), 9223372036854775807)
        $function$
        """,  # noqa: E501 - the source of the function is part of the schema
    ),
    # Scheme, host and port of a webhook's URL: operators may not read the rest, which may contain a password.
    "webhook_origin(uuid)": (
        f"{_WORKER}, {_OPERATOR}",
        r"""
        CREATE FUNCTION webhook_origin(webhook uuid) RETURNS text
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $function$
            SELECT substring(w.url FROM '^[a-zA-Z]+://') || substring(w.url FROM '^[a-zA-Z]+://(?:[^/?#]*@)?([^/?#]*)')
            FROM {schema}.webhook_endpoints w
            WHERE w.id = webhook
        $function$
        """,
    ),
}

OPERATORS = {
    "raise_alarms(jsonb)": _atomic(
        f"{_API}, {_WORKER}",
        "raise_alarms(raised jsonb) RETURNS void",
        """INSERT INTO alarms AS present (id, kind, subjects, first_seen_at, last_seen_at, count, tries, post_at)
            SELECT a.id, a.kind, a.subjects, a.first_seen_at, a.last_seen_at, a.count, 0, a.first_seen_at
            FROM jsonb_to_recordset(raised) AS a (
                id uuid, kind text, subjects jsonb, first_seen_at timestamptz, last_seen_at timestamptz, count bigint
            )
            ORDER BY a.kind, a.subjects
            ON CONFLICT (kind, subjects) WHERE acknowledged_at IS NULL DO UPDATE SET
                count = present.count + excluded.count,
                last_seen_at = greatest(present.last_seen_at, excluded.last_seen_at)""",
        kind="VOLATILE",
    ),
    # Other roles do not see the state and the beginning of each other's transactions. Statements are left out, because
    # they may contain personal data.
    "open_transactions()": _atomic(
        _WORKER,
        """open_transactions() RETURNS TABLE (
            pid integer, login name, program text, state text, waits_for text, since timestamptz, blocks bigint
        )""",
        """SELECT a.pid, a.usename, a.application_name, a.state, a.wait_event_type, a.xact_start,
                   (SELECT count(DISTINCT w.pid) FROM pg_locks w
                    WHERE NOT w.granted AND a.pid = ANY (pg_blocking_pids(w.pid)))
            FROM pg_stat_activity a
            WHERE a.datname = current_database() AND a.backend_type = 'client backend'
              AND a.xact_start IS NOT NULL AND a.pid <> pg_backend_pid()
            ORDER BY a.xact_start""",
        kind="VOLATILE",
    ),
    # Of decisions only: other answers and bodies contain texts of clients.
    "decision_answer(uuid)": _atomic(
        _OPERATOR,
        "decision_answer(command uuid) RETURNS TABLE (is_applied boolean, refusal text, attempt_id uuid)",
        """SELECT i.applied_at IS NOT NULL, i.answer -> 'refusal' ->> 'message',
                   CAST(i.answer ->> 'attempt_id' AS uuid)
            FROM inbox i WHERE i.id = command AND i.kind = 'decide_outcome'""",
    ),
    # The pattern comes first, because the error of a cast would quote the text.
    "quarantined_attempt(uuid)": _atomic(
        f"{_WORKER}, {_OPERATOR}",
        "quarantined_attempt(command uuid) RETURNS uuid",
        """SELECT CASE WHEN i.body ->> 'attempt_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                        THEN CAST(i.body ->> 'attempt_id' AS uuid) END
            FROM inbox i
            WHERE i.id = command AND i.quarantined_at IS NOT NULL""",
    ),
    # A token names a call to the carrier's callbacks, so operators do not read it.
    "quarantined_call(uuid)": _atomic(
        f"{_WORKER}, {_OPERATOR}",
        "quarantined_call(callback uuid) RETURNS uuid",
        """SELECT t.attempt_id FROM carrier_events e JOIN attempt_tokens t ON t.token = e.token
            WHERE e.id = callback AND e.quarantined_at IS NOT NULL""",
    ),
    # A right to empty the bodies would be a right to rewrite them.
    "drop_quarantined(uuid[], timestamptz, jsonb)": _atomic(
        f"{_WORKER}, {_OPERATOR}",
        "drop_quarantined(commands uuid[], dropped_at timestamptz, dropped_with jsonb) RETURNS void",
        """UPDATE inbox SET applied_at = dropped_at, body = NULL, answer = dropped_with
            WHERE id = ANY (commands) AND quarantined_at IS NOT NULL AND applied_at IS NULL""",
        kind="VOLATILE",
    ),
    # What the console must know about numbers, without a digit. The second one still tells whose a given number is: the
    # console limits the searches of an operator.
    "numbers_of_interview(uuid)": _atomic(
        _OPERATOR,
        "numbers_of_interview(interview uuid, OUT is_there boolean, OUT backoffs bigint[])",
        """SELECT p.phone_number IS NOT NULL,
                   ARRAY (SELECT b.id FROM carrier_backoffs b
                          WHERE b.company_id = i.company_id AND b.caller = i.caller_number)
            FROM interviews i JOIN candidates p ON p.id = i.candidate_id
            WHERE i.id = interview""",
    ),
    "candidates_of_number(text[], integer)": _atomic(
        _OPERATOR,
        "candidates_of_number(numbers text[], most integer) RETURNS SETOF uuid",
        """SELECT c.id FROM candidates c WHERE c.phone_number = ANY (numbers)
            ORDER BY c.id DESC LIMIT least(most, 50)""",
    ),
    # An operator must not read the columns of external ids. The index begins with the company: OFFSET 0 makes
    # PostgreSQL look into it for each company, instead of reading all rows.
    "resources_of_external_id(text[], integer)": _atomic(
        _OPERATOR,
        """resources_of_external_id(texts text[], most integer)
            RETURNS TABLE (kind text, id uuid, company_id uuid)""",
        """SELECT 'interview', r.id, c.id FROM companies c CROSS JOIN LATERAL (
                SELECT t.id FROM interviews t
                WHERE t.company_id = c.id AND t.external_id = ANY (texts) AND t.deleted_at IS NULL OFFSET 0
            ) r
            UNION ALL SELECT 'candidate', r.id, c.id FROM companies c CROSS JOIN LATERAL (
                SELECT t.id FROM candidates t
                WHERE t.company_id = c.id AND t.external_id = ANY (texts) AND t.erased_at IS NULL OFFSET 0
            ) r
            UNION ALL SELECT 'job', r.id, c.id FROM companies c CROSS JOIN LATERAL (
                SELECT t.id FROM jobs t
                WHERE t.company_id = c.id AND t.external_id = ANY (texts) AND t.deleted_at IS NULL OFFSET 0
            ) r
            ORDER BY 2 DESC LIMIT least(most, 50)""",
    ),
}
