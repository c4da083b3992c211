"""`duecall openapi`: the OpenAPI document of the public API, and the page of its error codes."""

from typing import Annotated

import typer

from scheduler.cli.app import examples, openapi
from scheduler.cli.options import DocumentFile
from scheduler.cli.output import fail


@openapi.command("write", epilog=examples("duecall openapi write docs/openapi.json"))
def openapi_write(file: DocumentFile) -> None:
    """Write the document that the API serves as /openapi.json. No system needs to run."""
    from api_shim import openapi_file

    file.write_text(openapi_file.text(), encoding="utf-8")


@openapi.command("check", epilog=examples("duecall openapi check docs/openapi.json"))
def openapi_check(file: DocumentFile) -> None:
    """Check that a file equals what the API serves as /openapi.json, byte for byte."""
    from api_shim import openapi_file

    try:
        openapi_file.check(file)
    except openapi_file.DocumentDiffers as error:
        fail(str(error))


@openapi.command(
    "errors",
    epilog=examples(
        "duecall openapi errors docs/reference/error-codes.md",
        "duecall openapi errors --check docs/reference/error-codes.md",
    ),
)
def openapi_errors(
    file: DocumentFile,
    check: Annotated[bool, typer.Option("--check", help="Compare the file and write nothing.")] = False,
) -> None:
    """Write the page of error codes."""
    from api_shim import error_codes, openapi_file

    if not check:
        file.write_text(error_codes.text(), encoding="utf-8")
        return
    try:
        error_codes.check(file)
    except openapi_file.DocumentDiffers as error:
        fail(str(error))
