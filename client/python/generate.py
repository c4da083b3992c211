"""Generate `duecall_client.generated` from the OpenAPI document: `python generate.py DOCUMENT FOLDER`."""

import shutil
import sys
from pathlib import Path

from openapi_python_client import generate
from openapi_python_client.config import Config, ConfigFile, MetaType

HERE = Path(__file__).resolve().parent
OTHER_TYPES = {"application/x-ndjson": "application/octet-stream"}
"""Types of content that the generator does not know, and the one it knows that has the same form."""


def write(document: Path, folder: Path) -> list[str]:
    """Replace the folder by code for this document. Return the warnings of the generator."""
    shutil.rmtree(folder, ignore_errors=True)
    config = Config.from_sources(
        config_file=ConfigFile(post_hooks=[], content_type_overrides=OTHER_TYPES),
        meta_type=MetaType.NONE,
        document_source=document,
        file_encoding="utf-8",
        overwrite=False,
        output_path=folder,
    )
    return [
        f"{each.header}: {each.detail}" for each in generate(config=config, custom_template_path=HERE / "templates")
    ]


if __name__ == "__main__":
    # A warning names an operation that is left out.
    if warnings := write(Path(sys.argv[1]), Path(sys.argv[2])):
        sys.exit("\n".join(warnings))
