"""`duecall billing` and `duecall numbers`: prices and caller numbers of a company."""

import json
from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import typer

from scheduler.cli.app import billing, examples, numbers
from scheduler.cli.installation import operator_session
from scheduler.cli.options import AsJson
from scheduler.cli.output import refuse, say_plainly
from scheduler.domain.usage import Billing, BillingSystem, PriceList
from scheduler.rules.pricing import DEFAULT_PRICES, prices_as_json, read_prices
from scheduler.use_cases.operations.installation import Installation
from scheduler.use_cases.resources.usage import Usage

_AMOUNTS = ("baseCost", "costPerMinute", "includedMinutes")


@numbers.command("add", epilog=examples("duecall numbers add 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 +421221020002"))
def numbers_add(company: UUID, number: str) -> None:
    """Let a company call from this number, which your carrier account must own."""
    with operator_session() as desk:
        installation = Installation(desk.database, desk.keys, desk.now)
        added = installation.add_number(company, number)
        desk.tell("a number was added")
        print(added)  # noqa: T201 - the answer itself


@billing.command(
    "set",
    epilog=examples(
        "duecall billing set 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --system credits",
        "duecall billing set 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --price SCREENING:2:0.25:10 --json",
        "duecall billing set 0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55 --default-prices",
    ),
)
def billing_set(
    company: Annotated[UUID, typer.Argument(metavar="COMPANY_ID")],
    system: Annotated[BillingSystem | None, typer.Option(help="The unit in which it is billed.")] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOCUS:BASE:PER_MINUTE:INCLUDED",
            help="Credits that a call of this focus costs: the base, and so much for each minute beyond those included."
            " May be repeated; the other prices stay.",
        ),
    ] = None,
    default_prices: Annotated[
        bool, typer.Option("--default-prices", help="Forget the company's own prices that are not named here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say in which unit and at which prices a company is billed from now on. What is booked stays as it is."""
    if system is None and not price and not default_prices:
        refuse("say what to set: --system, --price or --default-prices")
    prices = _prices(price or ())
    with operator_session() as desk:
        after = Usage(desk.database, desk.now).bill(
            company, system=system, prices=prices, drops_its_prices=default_prices
        )
    _print_billing(company, after, as_json=as_json)


def _prices(texts: Sequence[str]) -> PriceList:
    """Raises InvalidPrice."""
    form = {}
    for text in texts:
        focus, *amounts = text.split(":")
        if len(amounts) != len(_AMOUNTS):
            refuse(f"--price is FOCUS:BASE:PER_MINUTE:INCLUDED, e.g. SCREENING:2:0.25:10; got {text!r}")
        form[focus] = dict(zip(_AMOUNTS, amounts, strict=True))
    return read_prices(form)


def _print_billing(company: UUID, after: Billing, *, as_json: bool) -> None:
    prices = prices_as_json({**DEFAULT_PRICES, **after.prices})
    if as_json:
        own = [focus.value for focus in after.prices]
        told = {"companyId": str(company), "billingSystem": after.system, "prices": prices, "ownPrices": own}
        print(json.dumps(told))  # noqa: T201 - the answer itself
        return
    say_plainly(f"Company {company} is billed in {after.system}.")
    for focus, price in prices.items():
        base, per_minute, included = (price[name] for name in _AMOUNTS)
        whose = "its own" if focus in after.prices else "default"
        say_plainly(f"  {focus}: {base} credits, {per_minute} for each minute beyond {included} ({whose})")
