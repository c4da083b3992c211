"""Spin checks the models of calls: they have no error, and each rule that a switch breaks is detected.

Run by `make model`. It prints a line per run, and exits 0 only if every run has the expected result.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.verification.model.arrows import (
    ASKS_WHETHER_ALL_END,
    BATCH,
    CONVERSATION,
    DIAL,
    happenings,
    with_its_events_told,
)

SAFETY: Mapping[str, str] = {
    "CLAIMS_READ_THEN_WRITE": "a claim reads that the attempt is pending, and writes later",
    "CLAIMS_PASS_COMMANDS": "an attempt is claimed while a command for it is accepted and not applied",
    "A_HINT_IS_A_REASON": "a worker claims an attempt on a hint, due or not",
    "NO_LAST_LOOK": "the hours are not checked between claim and POST",
    "NO_KERNEL_TIMER": "a worker that was frozen past its lease sends its POST",
    "SENDS_AGAIN": "a POST whose answer was lost is sent again",
    "RECORDS_ANYHOW": "an answer is recorded whatever has happened since the claim",
    "A_LAPSED_LEASE_IS_PENDING": "a lapsed lease returns the attempt to pending",
    "VERDICT_AT_ONCE": "an outcome is given up while the POST may still arrive",
    "VERDICT_WITHOUT_AN_ANSWER": "an outcome is given up although no list could be read",
    "AN_EMPTY_LIST_IS_PROOF": "a call that the carrier does not list counts as never placed",
    "THE_UNKNOWN_IS_RETRIED": "a retry follows an unknown outcome",
    "A_CANCEL_IS_PROOF": "a cancelled call counts as never dialled, without a poll",
    "DELETE_READS_THEN_WRITES": "a deletion reads that the attempt is pending, and ends it later",
}
LIVENESS: Mapping[str, str] = {
    "SILENCE_IS_NOT_NOTICED": "lapsed leases are not noticed",
    "CARRIER_IS_NOT_POLLED": "the carrier is never polled, and only callbacks are processed",
    "UNKNOWN_IS_NOT_GIVEN_UP": "an outcome without proof is polled forever and never given up",
}
BATCHES: Mapping[str, str] = {
    "A_BATCH_TRUSTS_ITS_IDS": "a claim tests one row, and takes each id of its batch",
    "A_STALE_ROW_STOPS_ITS_BATCH": "a stale row stops the claim of the others",
    "LINES_ARE_TESTED_ROW_BY_ROW": "a claim takes two attempts to one number, whose line is free for each",
    "A_CLAIM_IN_DOUBT_IS_SENT": "attempts are sent although the commit of their claim was not confirmed",
    "A_LOOK_IS_JUDGED_AS_A_WHOLE": "a last look at several calls permits all of them or none",
    "A_BLOCKED_CALL_STOPS_ITS_LOOK": "a call that may not be sent stops the others of its look",
    "THE_TIMER_COVERS_ONE_CALL": "the kernel's timer is set for one of the calls that a worker holds",
    "A_RECORD_IS_TESTED_AS_A_WHOLE": "a record writes all answers of its batch if one claim is current",
    "A_LATE_ANSWER_STOPS_ITS_RECORD": "a late answer stops the record of the others",
    "RECORDS_TRUST_THE_EPOCH": "a record compares the epoch, and not the token",
    "A_FAILED_RECORD_SENDS_AGAIN": "the calls of a record that failed are sent again",
}
CONVERSATIONS: Mapping[str, str] = {
    "A_REPORT_DECIDES_AT_ONCE": "a report decides about the interview before its call has ended",
    "A_REPORT_DECIDES_TWICE": "the end of a call with a report decides twice",
    "A_SECOND_REPORT_COUNTS": "a second report replaces the first",
    "THE_VERDICT_COUNTS_MORE": "the verdict of a machine counts more than a report",
    "AN_END_WAITS_FOR_NO_VERDICT": "the end of an answered call counts as a person before its verdict",
    "A_LATE_VERDICT_CHANGES_THE_END": "a verdict changes the end of a call whose report is awaited",
    "LATE_NEWS_DECIDES": "a late or repeated callback ends the wait for a report",
    "A_LATE_FAILURE_ENDS_THE_WAIT": "late proof decides while a newer call may be reported",
    "A_FALLBACK_COUNTS_MORE": "a request for other instructions counts more than a report",
    "A_LATE_PROOF_IS_FOLLOWED": "a call whose end is proven late is retried",
    "A_LATE_CALL_BACK_IS_LOST": "a person who named a time is not called, because the end of the call was lost",
    "A_LATE_CALL_BACK_REOPENS_ANY": "a time that a person named reopens an interview that is completed or cancelled",
    "A_LATE_CALL_BACK_PASSES_NEWER_CALLS": "a time that a person named is kept although a newer call has ended",
    "A_FOUND_CALL_IS_NOT_REPORTED": "a report in a live call that was found late is refused",
    "A_LATE_PROOF_WAITS_FOR_NO_REPORT": "late proof decides before the person of a live call could name a time",
    "A_LATE_WAIT_NEVER_ENDS": "late proof waits forever for a report",
    "A_LATE_WAIT_NEEDS_NO_KEY": "late proof waits although no key can report",
    "A_LATE_WAIT_PASSES_OPEN_ATTEMPTS": "an invoked call rings while the proof that the person has spoken waits",
    "A_DELETION_FORGETS_A_REFUSAL": "an opt-out is not accepted in a deleted interview",
    "A_LATE_REFUSAL_IS_REFUSED": "an opt-out is not accepted after another report, a verdict or a lost end",
    "A_LATE_REFUSAL_LEAVES_THE_RETRY": "a retry stays pending after a late opt-out",
    "A_REFUSED_CALL_IS_RETRIED": "a late opt-out is followed by another retry",
    "A_DELETED_INTERVIEW_GOES_ON": "a call follows in a deleted interview",
    "AN_INVOKE_PASSES_THE_WAIT": "an invoke creates an attempt while a report is awaited",
    "CLAIMS_PASS_COMMANDS": "an attempt is claimed before a report is applied",
    "THE_WAIT_PASSES_COMMANDS": "the wait ends while a report that came in time is not applied",
    "AN_END_PASSES_A_REPORT": "a call ends before an accepted report is applied, which the end refuses",
    "A_WAIT_NEVER_ENDS": "an interview waits forever for a report",
    "A_LAST_LOOK_FORGETS_REPORTS": "a call rings after an earlier conversation has reported an opt-out",
    "A_LAST_LOOK_PASSES_REFUSALS": "another interview calls a number whose opt-out is accepted and not applied",
}
"""The rule that each switch of a model breaks. BATCHES and CONVERSATIONS are those of the other two models."""

MISSING = "{} is missing. The model check needs spin and gcc: apt-get install spin gcc (Debian, Ubuntu)"
_SMALL = {"CLAIMS": 2, "DEATHS": 1, "COMMANDS": 1}
_TWO_INTERVIEWS = {"CLAIMS": 2, "DEATHS": 1, "COMMANDS": 0, "INTERVIEWS": 2}
_SMALL_BATCHES = {"CLAIMS": 2, "ATTEMPTS": 3}
_SMALL_CONVERSATIONS = {"ATTEMPTS": 2, "COMMANDS": 1}
_OPT_OUTS = {**_SMALL_CONVERSATIONS, "OPT_OUTS": 1}
_OTHERS = {"ATTEMPTS": 2, "COMMANDS": 1, "OPT_OUTS": 1, "OTHERS": 1, "INBOX": 2}
_LATE = {"ATTEMPTS": 2, "COMMANDS": 1, "LATE": 1, "INBOX": 2}
_TECHNICALS = {**_SMALL_CONVERSATIONS, "TECHNICALS": 1}
_THREE_CALLS = {"ATTEMPTS": 3, "COMMANDS": 1}
_THREE_CALLS_AND_OPT_OUTS = {**_THREE_CALLS, "OPT_OUTS": 1}
_OF_OPT_OUTS = (
    "A_LAST_LOOK_FORGETS_REPORTS",
    "A_LATE_REFUSAL_IS_REFUSED",
    "A_LATE_REFUSAL_LEAVES_THE_RETRY",
)
_OF_LATE_REPORTS = (
    *("A_FOUND_CALL_IS_NOT_REPORTED", "A_LATE_PROOF_WAITS_FOR_NO_REPORT", "A_LATE_WAIT_NEVER_ENDS"),
    *("A_LATE_WAIT_NEEDS_NO_KEY", "A_LATE_WAIT_PASSES_OPEN_ATTEMPTS"),
)
_SIZES_OF = {
    "VERDICT_WITHOUT_AN_ANSWER": _TWO_INTERVIEWS,
    "A_LATE_PROOF_IS_FOLLOWED": _TECHNICALS,
    "A_LATE_CALL_BACK_PASSES_NEWER_CALLS": _THREE_CALLS,
    "A_REFUSED_CALL_IS_RETRIED": _THREE_CALLS_AND_OPT_OUTS,
    **dict.fromkeys(("A_LAST_LOOK_PASSES_REFUSALS", "A_DELETION_FORGETS_A_REFUSAL"), _OTHERS),
    **dict.fromkeys(_OF_LATE_REPORTS, _LATE),
    **dict.fromkeys(_OF_OPT_OUTS, _OPT_OUTS),
}
"""Sizes that broken rules need to be detected. Default: small."""
_MEGABYTES = 2800
_AT_ONCE = 2
_DEEPEST = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Run:
    name: str
    model: Path = DIAL
    sizes: Mapping[str, int] = field(default_factory=lambda: _SMALL)
    broken: str | None = None
    must_happen: frozenset[str] = frozenset()
    """Events and situations that the run must reach: a situation that never happens is never checked."""
    whether_all_end: bool = False
    is_breadth_first: bool = False
    """Search short orders first, for a broken rule whose error the usual search meets late."""

    @property
    def defines(self) -> list[str]:
        switches = [self.broken] if self.broken else []
        switches += [ASKS_WHETHER_ALL_END] if self.whether_all_end else []
        return [*(f"-D{name}={size}" for name, size in self.sizes.items()), *(f"-D{name}" for name in switches)]


@dataclass(frozen=True, kw_only=True)
class Found:
    errors: int
    states: int
    is_whole: bool
    """The search was not cut by a limit of depth or memory, or by an error."""
    happened: frozenset[str]
    seconds: float


def all_runs() -> Iterator[Run]:
    yield Run(name="as it is: three claims", sizes={"CLAIMS": 3, "DEATHS": 1, "COMMANDS": 1})
    yield Run(name="as it is: two deaths, two commands", sizes={"CLAIMS": 2, "DEATHS": 2, "COMMANDS": 2})
    ends = {"CLAIMS": 2, "DEATHS": 1, "COMMANDS": 0}
    yield Run(name="as it is: every attempt ends", sizes=ends, whether_all_end=True)
    yield Run(name="as it is: two interviews, one number", sizes=_TWO_INTERVIEWS)
    events = happenings()
    yield Run(name=f"as it is: each of its {len(events)} events happens", must_happen=events)
    yield from _runs_of_batches()
    yield from _runs_of_conversations()
    for switch, what in SAFETY.items():
        yield Run(name=f"broken: {what}", sizes=_SIZES_OF.get(switch, _SMALL), broken=switch)
    for switch, what in LIVENESS.items():
        yield Run(name=f"broken: {what}", sizes=ends, broken=switch, whether_all_end=True)


def _runs_of_batches() -> Iterator[Run]:
    sizes = {"CLAIMS": 3, "ATTEMPTS": 3}
    all_of_it = happenings(BATCH)
    what = f"three attempts, and each of {len(all_of_it)} events and situations happens"
    yield Run(name=f"batches as they are: {what}", model=BATCH, sizes=sizes, must_happen=all_of_it)
    sizes = {"CLAIMS": 3, "ATTEMPTS": 2, "FAULTS": 2, "CANCELS": 2, "BLOCKS": 2}
    yield Run(name="batches as they are: two faults, two cancellations", model=BATCH, sizes=sizes)
    for switch, what in BATCHES.items():
        yield Run(name=f"batches broken: {what}", model=BATCH, sizes=_SMALL_BATCHES, broken=switch)


def _runs_of_conversations() -> Iterator[Run]:
    events = happenings(CONVERSATION)
    what = f"two attempts, and each of {len(events)} events happens"
    yield Run(
        name=f"conversations as they are: {what}",
        model=CONVERSATION,
        sizes=_SMALL_CONVERSATIONS,
        must_happen=events,
    )
    more = {
        "people opt out": _OPT_OUTS,
        "conversations fail": _TECHNICALS,
        "another interview has the number": _OTHERS,
        "late proof waits for a report": _LATE,
    }
    for name, sizes in more.items():
        yield Run(name=f"conversations as they are: {name}", model=CONVERSATION, sizes=sizes, must_happen=events)
    for switch, what in CONVERSATIONS.items():
        needed = _SIZES_OF.get(switch, _SMALL_CONVERSATIONS)
        yield Run(
            name=f"conversations broken: {what}",
            model=CONVERSATION,
            sizes=needed,
            broken=switch,
            is_breadth_first=needed["ATTEMPTS"] > 2,
        )


def check(run: Run, *, is_long: bool = True) -> Found:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        text = with_its_events_told(run.model) if run.must_happen else run.model.read_text(encoding="utf-8")
        (Path(folder) / run.model.name).write_text(text, encoding="utf-8")
        kind = ["-DNFAIR=4"] if run.whether_all_end else ["-DSAFETY"]
        kind += ["-DBFS"] if run.is_breadth_first else []
        # -o1 disables dead variable analysis, which would make 50 % more states here.
        _made(["spin", "-a", "-o1", *run.defines, run.model.name], folder)
        # Broken rules are detected at once: optimising would take longer than it saves.
        optimized = "-O2" if is_long and not run.broken else "-O0"
        _made(["gcc", optimized, "-w", "-DCOLLAPSE", f"-DMEMLIM={_MEGABYTES}", *kind, "-o", "pan", "pan.c"], folder)
        options = ["-a", "-f"] if run.whether_all_end else []
        output = _made(["./pan", f"-m{_DEEPEST}", *options], folder)
    return found_in(output, time.monotonic() - began)


def _made(command: list[str], folder: str) -> str:
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{' '.join(command)} failed: {ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    return ran.stdout


def found_in(said: str, seconds: float) -> Found:
    """Parse the verifier's output. Raises ValueError if it contains no result."""
    [errors] = re.findall(r"errors: (\d+)", said)
    states = re.findall(r"^ *([0-9.e+]+) states, stored", said, re.MULTILINE)
    is_cut = re.search(r"max search depth too small|out of memory|reached -DMEMLIM|Search not completed", said)
    return Found(
        errors=int(errors),
        states=int(float(states[0])),
        is_whole=is_cut is None,
        happened=frozenset(re.findall(r"^happens: (\w+)$", said, re.MULTILINE)),
        seconds=seconds,
    )


def is_as_it_must_be(run: Run, found: Found) -> bool:
    if run.broken:
        return found.errors > 0
    return found.errors == 0 and found.is_whole and run.must_happen <= found.happened


def line(run: Run, found: Found) -> str:
    verdict = "found" if found.errors else "clean"
    if not is_as_it_must_be(run, found):
        verdict = "NOT FOUND" if run.broken else "WRONG" if found.errors else "NOT SEARCHED TO THE END"
        if found.is_whole and not found.errors and not run.broken:
            verdict = f"NEVER: {', '.join(sorted(run.must_happen - found.happened))}"
    return f"{run.name:88} {found.errors} errors {found.states:12,} states {found.seconds:6.1f} s  {verdict}"


def main() -> int:
    for tool in ("spin", "gcc"):
        if shutil.which(tool) is None:
            print(MISSING.format(tool), file=sys.stderr)
            return 1
    began, wrong = time.monotonic(), 0
    runs = list(all_runs())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for run, found in zip(runs, pool.map(check, runs), strict=True):
            wrong += not is_as_it_must_be(run, found)
            print(line(run, found), flush=True)
    print(f"{wrong} wrong, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
