"""`duecall openapi`: the document of the public API."""

from scheduler.cli.app import examples, openapi
from scheduler.cli.options import WhichFile
from scheduler.cli.output import fail


@openapi.command("write", epilog=examples("duecall openapi write docs/openapi.json"))
def openapi_write(file: WhichFile) -> None:
    """Write what the API serves as /openapi.json; needs no system that runs."""
    from api_shim import openapi_file  # noqa: PLC0415 - makes the whole API, which no other command needs

    file.write_text(openapi_file.text(), encoding="utf-8")


@openapi.command("check", epilog=examples("duecall openapi check docs/openapi.json"))
def openapi_check(file: WhichFile) -> None:
    """Say whether a file is what the API serves as /openapi.json, byte for byte."""
    from api_shim import openapi_file  # noqa: PLC0415 - as above

    try:
        openapi_file.check(file)
    except openapi_file.DocumentDiffers as error:
        fail(str(error))
