"""The models have no arrow that the product lacks, and together have every arrow of a call in progress."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from scheduler.domain.attempt import AttemptState, ConversationOutcome, Phase, Reason
from scheduler.lifecycle.retries import is_retried
from scheduler.lifecycle.state_machine import ARROWS, CALL_ENDS
from tests.verification.model import __main__ as checker
from tests.verification.model.__main__ import (
    BATCHES,
    CONVERSATIONS,
    LIVENESS,
    MISSING,
    SAFETY,
    Found,
    Run,
    all_runs,
    check,
    found_in,
    is_as_it_must_be,
)
from tests.verification.model.arrows import BATCH, CONVERSATION, DIAL, ModelArrow, arrows, happenings, switches, words

_NOT_IN_THE_MODEL = {reason for reason, state in CALL_ENDS.items() if state is AttemptState.FAILED} - words("reason")
_RETRIED = {reason for reason in _NOT_IN_THE_MODEL if is_retried(reason)}
STANDS_FOR = {"BUSY": _RETRIED, "DECLINED": _NOT_IN_THE_MODEL - _RETRIED}
"""Reasons with the same consequences (retried, or not), which the model represents by one of them."""
LEFT_OUT = {
    ModelArrow("cancelled", "IN_PROGRESS", "CANCELLED", "COMPANY_DELETED"): "no company is deleted in the model",
    ModelArrow(
        "cause_awaited", "IN_PROGRESS", "IN_PROGRESS", None
    ): "a failure ends by its first news, which no report can follow",
}

PRODUCT = {
    ModelArrow(
        event=arrow.event,
        source=arrow.source and arrow.source.value,
        target=arrow.target.value,
        reason=arrow.reason and arrow.reason.value,
    )
    for arrow in ARROWS
}


def in_the_model() -> set[ModelArrow]:
    """List the arrows of a call and of its conversation, and the arrows that they represent."""
    represented = {
        arrow._replace(reason=other)
        for arrow in arrows() | arrows(CONVERSATION)
        for other in STANDS_FOR.get(arrow.reason or "", set())
        if arrow.event in {"ended", "proven"}
    }
    return arrows() | arrows(CONVERSATION) | represented


def test_model_has_no_arrow_that_the_product_lacks() -> None:
    assert len(arrows()) > 20
    assert arrows() - PRODUCT == set()
    assert len(arrows(BATCH)) > 9
    assert arrows(BATCH) - PRODUCT == set()
    assert len(arrows(CONVERSATION)) > 20
    assert arrows(CONVERSATION) - PRODUCT == set()


def test_model_has_every_arrow_of_a_call_in_progress() -> None:
    of_a_call = {arrow for arrow in PRODUCT if "IN_PROGRESS" in {arrow.source, arrow.target}}
    assert of_a_call - in_the_model() == LEFT_OUT.keys()
    assert not LEFT_OUT.keys() & in_the_model()


def test_model_has_every_arrow_of_a_report() -> None:
    late = {arrow for arrow in PRODUCT if arrow.event in {"reported", "outcome_awaited", "not_reported"}}
    assert len(late) > 3
    assert late <= arrows(CONVERSATION)


def test_model_has_every_end_that_can_be_proven_late() -> None:
    late = {arrow for arrow in PRODUCT if arrow.event in {"proven", "leg_seen", "proof_missing"}}
    assert late <= in_the_model()


def test_model_names_are_those_of_the_product() -> None:
    assert words("phase") == {each.value for each in Phase}
    assert words("state") == {each.value for each in AttemptState}
    assert words("reason") <= {each.value for each in Reason}
    assert words("phase", BATCH) == words("phase")
    assert words("state", BATCH) == words("state")
    assert words("reason", BATCH) <= words("reason")
    assert words("state", CONVERSATION) == words("state")
    assert words("reason", CONVERSATION) <= {each.value for each in Reason}
    assert words("outcome", CONVERSATION) <= {each.value for each in ConversationOutcome}


def test_each_switch_of_the_model_has_a_run() -> None:
    assert switches() == SAFETY.keys() | LIVENESS.keys()
    assert switches(BATCH) == BATCHES.keys()
    assert switches(CONVERSATION) == CONVERSATIONS.keys()
    for model in (DIAL, BATCH, CONVERSATION):
        runs = [run.broken for run in all_runs() if run.broken and run.model == model]
        assert sorted(runs) == sorted(switches(model))


def test_each_situation_of_a_batch_must_be_reached() -> None:
    situations = happenings(BATCH) - {arrow.event for arrow in arrows(BATCH)}
    assert {"one_row_is_stale", "one_call_is_blocked", "one_answer_is_late", "one_token_is_replaced"} <= situations
    assert any(situations <= run.must_happen for run in all_runs() if run.model == BATCH and not run.broken)


# ---- results of the checker

CLEAN = """
State-vector 148 byte, depth reached 307, errors: 0
 11303019 states, stored
"""
WRONG = """
pan:1: assertion violated (at[a].state==4) (at depth 25)
Warning: Search not completed
State-vector 132 byte, depth reached 30, errors: 1
       66 states, stored
"""
CUT = f"error: max search depth too small\n{CLEAN}"


@pytest.mark.parametrize(
    ("said", "broken", "passes"),
    [
        pytest.param(CLEAN, None, True, id="as it is, and clean"),
        pytest.param(WRONG, None, False, id="as it is, and wrong"),
        pytest.param(CUT, None, False, id="as it is, and not searched to the end"),
        pytest.param(WRONG, "SENDS_AGAIN", True, id="broken, and found"),
        pytest.param(CLEAN, "SENDS_AGAIN", False, id="broken, and not found"),
    ],
)
def test_run_passes_only_with_the_expected_result(said: str, broken: str | None, passes: bool) -> None:
    assert is_as_it_must_be(Run(name="a test", broken=broken), found_in(said, 1.0)) is passes


def test_run_without_a_required_event_does_not_pass() -> None:
    run = Run(name="a test", must_happen=frozenset({"claimed", "placed"}))
    assert is_as_it_must_be(run, found_in(f"happens: claimed\nhappens: placed\n{CLEAN}", 1.0))
    assert not is_as_it_must_be(run, found_in(f"happens: claimed\n{CLEAN}", 1.0))


def test_message_for_missing_spin_names_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checker.main() == 1
    assert capsys.readouterr().err.strip() == MISSING.format("spin")


@pytest.mark.skipif(
    (shutil.which("spin") is None or shutil.which("gcc") is None) and os.environ.get("CI") != "true",
    reason="spin and gcc are not installed: apt-get install spin gcc",
)
@pytest.mark.parametrize(
    ("model", "tiny", "broken"),
    [
        pytest.param(DIAL, {"CLAIMS": 2, "DEATHS": 0, "COMMANDS": 0}, "A_LAPSED_LEASE_IS_PENDING", id="a call"),
        pytest.param(BATCH, {"CLAIMS": 2, "ATTEMPTS": 2, "FAULTS": 0}, "A_LOOK_IS_JUDGED_AS_A_WHOLE", id="batches"),
    ],
)
def test_small_model_is_clean_and_its_broken_rule_is_detected(
    model: Path, tiny: Mapping[str, int], broken: str
) -> None:
    as_it_is: Found = check(Run(name="as it is", model=model, sizes=tiny), is_long=False)
    assert (as_it_is.errors, as_it_is.is_whole) == (0, True)
    assert check(Run(name="broken", model=model, sizes=tiny, broken=broken)).errors == 1
