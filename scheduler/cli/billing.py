"""`duecall billing` and `duecall numbers`: prices and caller numbers of a company."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import typer

from scheduler.cli.app import billing, examples, numbers
from scheduler.cli.on_demand import operator_session
from scheduler.cli.options import AsJson, CompanyId, Reason
from scheduler.cli.output import print_json, print_note, print_result, refuse
from scheduler.domain.usage import Billing, BillingSystem, PriceList
from scheduler.rules.pricing import DEFAULT_PRICES, prices_as_json, read_prices

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
            print_json({"id": str(number_id), "companyId": str(company), "number": number})
        else:
            print_result(str(number_id))


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
    from scheduler.use_cases.resources.usage import Usage

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
        print_json({"companyId": str(company), "billingSystem": after.system, "prices": prices, "ownPrices": own})
        return
    print_note(f"Company {company} is billed in {after.system}.")
    for focus, price in prices.items():
        base, per_minute, included = (price[name] for name in _AMOUNTS)
        origin = "own price" if focus in after.prices else "default"
        print_note(f"  {focus}: {base} credits, {per_minute} per minute beyond {included} ({origin})")
