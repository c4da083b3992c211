"""Find: the rows that an operator names by an id, by a call's sid, by a phone number or by an external id."""

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from console.stores.search import FoundAttempt, FoundRow, Search
from console.stores.sessions import ConsoleSession
from scheduler.clock import monotonic
from scheduler.domain.refusals import PhoneNumberInvalid
from scheduler.domain.resource import LONGEST_EXTERNAL_ID
from scheduler.hashing import Hasher
from scheduler.ids import id_or_none
from scheduler.logs import log
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.timing import callee_zones
from scheduler.wire.json_values import unstorable

MAX_LISTED = 50
_CALL_SID = re.compile(r"CA[0-9a-fA-F]{32}")
_BETWEEN_DIGITS = re.compile(r"[\s().\-/]")
_LOOKS_LIKE_NUMBER = re.compile(r"\+?[0-9\s().\-/]{5,30}")


class Kind(StrEnum):
    """The kind of text that is looked for. A page names only the kind, because the text may be personal data."""

    ID = "id"
    CALL_SID = "call sid"
    NUMBER = "phone number"
    EXTERNAL_ID = "external id"


class NotFindable(Exception):
    """The text has an unknown kind. The message names the accepted kinds, and never quotes the text."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The result. `rows` without those that are attempts."""

    kind: Kind
    rows: Sequence[FoundRow] = ()
    attempts: Sequence[FoundAttempt] = field(default=())
    is_cut: bool = False
    """More attempts than `MAX_LISTED` were found."""
    are_rows_cut: bool = False
    """More resources than `MAX_LISTED` may have the external id."""


class Find:
    def __init__(self, database: Database, hasher: Hasher) -> None:
        self._database = database
        self._hasher = hasher

    def text(self, wanted: str) -> Findings:
        """Look for the rows that the text names. Raises NotFindable, DatabaseAway. It is not stored or logged."""
        given = wanted.strip()
        if (wanted_id := id_or_none(given)) is not None:
            with self._database.reading() as stores:
                return _with_attempts(stores, Kind.ID, Search(stores.connection).of_id(wanted_id))
        if _CALL_SID.fullmatch(given):
            with self._database.reading() as stores:
                return _with_attempts(stores, Kind.CALL_SID, Search(stores.connection).of_call(given))
        number, written = _as_number(given)
        with self._database.reading() as stores:
            # One more than are listed, of people and of attempts: both may leave out the same one.
            found = Search(stores.connection).of_number([number, written], self._hasher.number(number), MAX_LISTED + 1)
            return _with_attempts(stores, Kind.NUMBER, found)

    def external_id(self, wanted: str) -> Findings:
        """Look for the resources of all companies with this external id. Raises NotFindable, DatabaseAway.

        The text is compared exactly, also without the spaces around it, which a copied text may have gained.
        """
        if len(wanted) > LONGEST_EXTERNAL_ID or unstorable(wanted):
            raise NotFindable(f"An external id has at most {LONGEST_EXTERNAL_ID} characters, and no NUL character.")
        with self._database.reading() as stores:
            rows = Search(stores.connection).of_external_id(list(dict.fromkeys([wanted, wanted.strip()])), MAX_LISTED)
            found = _with_attempts(stores, Kind.EXTERNAL_ID, rows)
        return replace(found, are_rows_cut=len(rows) == MAX_LISTED)


def _with_attempts(stores: Stores, kind: Kind, rows: Sequence[FoundRow]) -> Findings:
    """Add the attempts of the rows. Always one statement, so that its time tells nothing about a number."""
    attempts = Search(stores.connection).attempts(
        [each.id for each in rows if each.kind == "attempt"],
        [each.interview_id for each in rows if each.kind != "attempt" and each.interview_id is not None],
        [each.id for each in rows if each.kind == "candidate"],
        MAX_LISTED + 1,
    )
    return Findings(
        kind=kind,
        rows=[each for each in rows if each.kind != "attempt"][:MAX_LISTED],
        attempts=attempts[:MAX_LISTED],
        is_cut=len(attempts) > MAX_LISTED,
    )


def _as_number(given: str) -> tuple[str, str]:
    """Read the number in its canonical form, as lines use it, and as candidates may have it. Raises NotFindable."""
    if not _LOOKS_LIKE_NUMBER.fullmatch(given):
        raise NotFindable(
            "Enter a whole id, a call's sid (CA and 32 hexadecimal digits) or a phone number with its country's calling"
            " code, for example +421 905 …."
        )
    try:
        written = _BETWEEN_DIGITS.sub("", given)
        return callee_zones.read_number(written).e164, written
    except PhoneNumberInvalid as invalid:
        raise NotFindable(invalid.message) from None


# --- The limit of searches: without one, an operator could try all phone numbers and learn whose they are


_log = log(__name__)
MOST_SEARCHES = 30
"""Searches of one operator within `SEARCHES_WITHIN_S`."""
SEARCHES_WITHIN_S = 60.0


class SearchLimit:
    """Counts in this process. Used by its event loop only."""

    def __init__(self, *, monotonic: Callable[[], float] = monotonic) -> None:
        self._monotonic = monotonic
        self._times: dict[str, deque[float]] = {}

    def take(self, session: ConsoleSession) -> bool:
        """Count a search. False: the operator, also in other sessions, has made too many."""
        now = self._monotonic()
        self._times = {each: times for each, times in self._times.items() if now - times[-1] < SEARCHES_WITHIN_S}
        times = self._times.setdefault(session.actor, deque(maxlen=MOST_SEARCHES))
        if len(times) == MOST_SEARCHES and now - times[0] < SEARCHES_WITHIN_S:
            _log.warning("console_searches_limited: An operator searched too often.", session_id=str(session.id))
            return False
        times.append(now)
        return True
