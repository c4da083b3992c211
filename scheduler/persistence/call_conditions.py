"""Conditions in SQL under which a pending attempt may be called at `:now`. Each is written here once.

They are about an attempt `a`, its line `l`, its company `c` and a back-off `b`. The claim tests them all: see
`attempt_claims`. Release, holds and trial calls test them too, so that they pick no attempt that the claim would leave.
"""

LINE_HAS_A_CALL = "l.attempt_id IS NOT NULL"
LINE_RESTS = "(l.free_at > :now AND l.interview_id IS DISTINCT FROM a.interview_id)"
"""True in the gap after a call, except for retries of its interview."""
LINE_IS_BUSY = f"({LINE_HAS_A_CALL} OR {LINE_RESTS})"

COMPANY_MAY_CALL = "c.paused_at IS NULL AND c.deleted_at IS NULL"

IS_NOT_RELEASED = "(a.released_until IS NULL OR a.released_until <= :now OR a.released_until > :latest)"
"""True without a release, or after it. A later release than `:latest` was made by a wrong clock."""

MATCHES = """
    b.country = l.country
    OR b.company_id = a.company_id
       AND b.caller = (SELECT i.caller_number FROM interviews i WHERE i.id = a.interview_id)
"""
"""True if the back-off `b` holds the order of attempt `a` to line `l`."""

OF_BACKOFF = f"""
    FROM carrier_backoffs b
    WHERE b.account_id = coalesce(CAST(:account_id AS smallint), (SELECT max(id) FROM carrier_accounts))
      AND b.down_until IS NOT NULL AND ({MATCHES})
"""  # noqa: S608 - the inserted text is a constant
"""The back-offs of the account `:account_id`, or else of the newest one, that hold the attempt's order."""


def command_waits(interview_id: str = "a.interview_id") -> str:
    """Build the condition that an accepted command for the interview is not applied yet."""
    return f"EXISTS (SELECT FROM inbox x WHERE x.interview_id = {interview_id} AND x.applied_at IS NULL)"
