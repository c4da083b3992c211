"""`duecall companies`: what operators decide about one company."""

from typing import Annotated

import typer

from scheduler.cli.app import companies, examples
from scheduler.cli.on_demand import operator_session
from scheduler.cli.options import AsJson, CompanyId, Reason
from scheduler.cli.output import print_json, print_note, refuse
from scheduler.domain.company import LimitCeiling


@companies.command(
    "limit",
    epilog=examples(
        "duecall companies limit 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --concurrent-calls 20 --calls-per-second 2",
        "duecall companies limit 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --default --json",
    ),
)
def companies_limit(
    company: CompanyId,
    concurrent_calls: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Most calls at once.", show_default=False)
    ] = None,
    calls_per_second: Annotated[
        float | None, typer.Option(min=0.001, max=1000, help="Most calls started a second.", show_default=False)
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="The limits of the carrier account, for every limit that is not given.")
    ] = False,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Set the highest limits that a company may set for itself. Its present limits are lowered to them at once.

    Without a ceiling, a company may set its limits up to those of the carrier account. Raising a ceiling raises no
    limit: the company does that.
    """
    from scheduler.use_cases.operations.ceilings import Ceilings

    if concurrent_calls is None and calls_per_second is None and not default:
        refuse("Give at least one of --concurrent-calls, --calls-per-second and --default.")
    named = LimitCeiling(concurrent_calls=concurrent_calls, calls_per_second=calls_per_second)
    with operator_session() as session:
        after = Ceilings(session.database, session.now, session.actor).set(
            company, named, drops_others=default, reason=reason
        )
    ceiling, limits = after.ceiling, after.limits
    if as_json:
        print_json(
            {
                "companyId": str(company),
                "ceiling": _as_json(ceiling.concurrent_calls, ceiling.calls_per_second),
                "limits": _as_json(limits.concurrent_calls, limits.calls_per_second),
            }
        )
        return
    most = ["as the account" if each is None else each for each in (ceiling.concurrent_calls, ceiling.calls_per_second)]
    print_note(f"Company {company} may have up to: calls at once {most[0]}, calls started a second {most[1]}.")
    print_note(f"Its limits now: calls at once {limits.concurrent_calls}, a second {limits.calls_per_second:g}.")


def _as_json(concurrent_calls: int | None, calls_per_second: float | None) -> dict[str, object]:
    return {"concurrentCalls": concurrent_calls, "callsPerSecond": calls_per_second}
