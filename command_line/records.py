"""Commands about companies: `duecall companies`, `billing`, `numbers`, `audit` and `erasures`."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from command_line.app import (
    AsJson,
    CompanyId,
    Reason,
    app,
    billing,
    companies,
    erasures,
    examples,
    id_argument,
    id_of,
    id_option,
    instant_of,
    numbers,
    operator_session,
    print_pages,
)
from command_line.output import plain, print_json, print_note, print_result, refuse
from scheduler.domain.company import Billing, BillingSystem, LimitCeiling, PriceList
from scheduler.domain.principal import TargetKind
from scheduler.rules.pricing import DEFAULT_PRICES, prices_as_json, read_prices

if TYPE_CHECKING:
    from scheduler.persistence.caller_days import CallerNumber
    from scheduler.persistence.erasures import Certificate


# --- `duecall companies`: what operators decide about one company


@companies.command(
    "limit",
    epilog=examples(
        "duecall companies limit 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --concurrent-calls 20 --calls-per-second 2",
        "duecall companies limit 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --default --json",
    ),
)
def companies_limit(
    company: CompanyId,
    concurrent_calls: Annotated[int | None, typer.Option(min=1, max=10_000, help="Most calls at once.")] = None,
    calls_per_second: Annotated[
        float | None, typer.Option(min=0.001, max=1000, help="Most calls started a second.")
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
    from scheduler.use_cases.operations.pauses import Ceilings

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
                "companyId": company,
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


# --- `duecall billing` and `duecall numbers`: prices and caller numbers of a company


_AMOUNTS = ("baseCost", "costPerMinute", "includedMinutes")


@numbers.command("add", epilog=examples("duecall numbers add 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 +421221020002"))
def numbers_add(
    company: CompanyId,
    number: Annotated[
        str, typer.Argument(metavar="NUMBER", help="Phone number with its country code, for example +421221020002.")
    ],
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Add a caller number to a company. The carrier account must own the number."""
    from scheduler.use_cases.operations.installation import Installation

    with operator_session() as session:
        installation = Installation(session.database, session.keys, session.now, session.actor)
        number_id = installation.add_number(company, number, reason)
        session.report("a number was added")
        if as_json:
            print_json({"id": number_id, "companyId": company, "number": number})
        else:
            print_result(str(number_id))


@numbers.command(
    "list",
    epilog=examples(
        "duecall numbers list 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55",
        "duecall numbers list 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --day 2026-11-30 --json",
    ),
)
def numbers_list(
    company: CompanyId,
    day: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Day of UTC that is counted. Default: today.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the caller numbers of a company with their calls of one day, oldest first.

    Each line has the number's id, the number, the calls that ended on the day, and how many of these a person
    answered, a person declined, and the person's network blocked.
    """
    with operator_session() as session:
        found = session.caller_reputation.numbers_of(company, None if day is None else day.date())
    session.print_list(
        found,
        lambda each: {"phoneNumberId": each.id, "number": each.number, **_counts(each)},
        lambda each: (each.id, each.number, *(f"{name} {count}" for name, count in _counts(each).items())),
        as_json=as_json,
        empty="the company has no number",
    )


def _counts(number: "CallerNumber") -> dict[str, int]:
    return {name: getattr(number, name) for name in ("calls", "answered", "declined", "blocked")}


@billing.command(
    "set",
    epilog=examples(
        "duecall billing set 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --system credits",
        "duecall billing set 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --price SCREENING:2:0.25:10 --json",
        "duecall billing set 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --default-prices",
    ),
)
def billing_set(
    company: CompanyId,
    system: Annotated[BillingSystem | None, typer.Option(help="Unit of billing.")] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOCUS:BASE:PER_MINUTE:INCLUDED",
            help="Credits for a call of this focus: a base price, and a price per minute beyond the included minutes."
            " Repeatable. Other prices keep their value.",
        ),
    ] = None,
    default_prices: Annotated[
        bool, typer.Option("--default-prices", help="Default prices for every focus without --price.")
    ] = False,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Set the unit and the prices in which a company is billed from now on. Booked usage does not change."""
    from scheduler.use_cases.resources.companies import Usage

    if system is None and not price and not default_prices:
        refuse("Give at least one of --system, --price and --default-prices.")
    prices = _prices(price or ())
    with operator_session() as session:
        after = Usage(session.database, session.now, session.actor).bill(
            company, system=system, prices=prices, drops_its_prices=default_prices, reason=reason
        )
    _print_billing(company, after, as_json=as_json)


def _prices(texts: Sequence[str]) -> PriceList:
    """Parse the values of --price. Raises InvalidPrice."""
    form = {}
    for text in texts:
        focus, *amounts = text.split(":")
        if len(amounts) != len(_AMOUNTS):
            refuse(f"--price must be FOCUS:BASE:PER_MINUTE:INCLUDED, for example SCREENING:2:0.25:10; got {text!r}.")
        form[focus] = dict(zip(_AMOUNTS, amounts, strict=True))
    return read_prices(form)


def _print_billing(company: UUID, after: Billing, *, as_json: bool) -> None:
    prices = prices_as_json({**DEFAULT_PRICES, **after.prices})
    if as_json:
        own = [focus.value for focus in after.prices]
        print_json({"companyId": company, "billingSystem": after.system, "prices": prices, "ownPrices": own})
        return
    print_note(f"Company {company} is billed in {after.system}.")
    for focus, price in prices.items():
        base, per_minute, included = (price[name] for name in _AMOUNTS)
        origin = "own price" if focus in after.prices else "default"
        print_note(f"  {focus}: {base} credits, {per_minute} per minute beyond {included} ({origin})")


# --- `duecall audit`: acts of operators and API keys


_MOST = 1000


@app.command(
    epilog=examples(
        "duecall audit",
        "duecall audit --since 2026-04-02T00:00Z --company 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55",
        "duecall audit --target key:6f1f3a52-0c8e-4f0a-9d4e-0b7a1f1f9c11 --json | jq '.entries[].verb'",
        "duecall audit --before 1234   # the entries that follow on the list",
    )
)
def audit(
    since: Annotated[str | None, typer.Option(help="Earliest time, e.g. 2026-04-02T07:00Z.")] = None,
    actor: Annotated[str | None, typer.Option(help="Actor, for example cli:USER@HOST or key:KEY_ID.")] = None,
    company: Annotated[UUID | None, id_option("COMPANY_ID", "Company that an act concerned.")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:ID",
            help=f"Target of the act, for example key:KEY_ID. Kinds: {', '.join(TargetKind)}. A kind alone matches all"
            " of it.",
        ),
    ] = None,
    before: Annotated[
        int | None,
        typer.Option(metavar="ENTRY_ID", min=1, help="Entry after which the list continues, with older ones."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=_MOST, help="Most entries to list.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List acts, newest first: the actor, the time, the target, the reason, and the values before and after."""
    from command_line.lists import audit_as_json, audit_page
    from scheduler.persistence.alarms import AuditFilter

    kind, target_id = _target(target)
    wanted = AuditFilter(
        since=None if since is None else instant_of(since, "--since"),
        actor=actor,
        company_id=company,
        target_kind=kind,
        target_id=target_id,
    )
    with operator_session() as session:
        found = session.acts.newest(wanted, before, limit + 1)
        creators = session.acts.link_creators(each.actor for each in found)
    entries, has_more = found[:limit], len(found) > limit
    if as_json:
        print_json(audit_as_json(entries, creators, has_more=has_more))
    else:
        print_pages(audit_page(entries, creators, has_more=has_more))


def _target(text: str | None) -> tuple[str | None, str | None]:
    if text is None:
        return None, None
    kind, _, target_id = text.strip().partition(":")
    if kind not in set(TargetKind):
        refuse(f"--target must begin with one of {', '.join(TargetKind)}, for example key:KEY_ID.")
    return kind, (str(id_of(target_id)) if target_id else None)


# --- `duecall erasures`: certificates of deleted companies


@erasures.command("list", epilog=examples("duecall erasures list", "duecall erasures list --json"))
def erasures_list(as_json: AsJson = False) -> None:
    """List the newest 100 erasures of companies: the time of the request and of the end, and the deleted rows."""
    with operator_session() as session:
        found = session.certificates.newest()
    session.print_list(found, _certificate, _certificate_cells, as_json=as_json, empty="no company was deleted")


@erasures.command(
    "show", epilog=examples("duecall erasures show COMPANY_ID", "duecall erasures show COMPANY_ID --json")
)
def erasures_show(
    company_id: Annotated[UUID, id_argument("COMPANY_ID", "Id from `duecall erasures list`.")],
    as_json: AsJson = False,
) -> None:
    """Show the certificate of a company's erasure: the times, and how many rows of each kind were deleted."""
    with operator_session() as session:
        certificate = session.certificates.of_company(company_id)
    if as_json:
        print_json(_certificate(certificate))
        return
    print_result(f"company   {certificate.company_id}")
    print_result(f"requested {plain(certificate.asked_at)}")
    print_result(f"finished  {plain(certificate.finished_at) or 'not yet'}")
    for kind, count in sorted(certificate.erased.items()):
        print_result(f"{count:>9} {kind}")


def _certificate(each: "Certificate") -> dict[str, object]:
    return {
        "companyId": each.company_id,
        "requestedAt": each.asked_at,
        "finishedAt": each.finished_at,
        "erased": each.erased,
        "rows": sum(each.erased.values()),
    }


def _certificate_cells(each: "Certificate") -> Iterator[object]:
    yield each.company_id
    yield f"requested {plain(each.asked_at)}"
    yield f"finished {plain(each.finished_at) or 'not yet'}"
    yield f"{sum(each.erased.values())} rows deleted"
