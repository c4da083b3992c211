"""Certificate authorities that may sign a carrier's certificate, for the dialling and the querying client."""

import ssl
from pathlib import Path


class NotTrustable(ValueError):
    """The file cannot be read, or holds no certificate in PEM."""


def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """Build a context that trusts the system's authorities and those in `ca_file`. Raises NotTrustable."""
    context = ssl.create_default_context()
    if ca_file is None:
        return context
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError:
        raise NotTrustable("names a file that holds no certificate in PEM form") from None
    except OSError as error:
        raise NotTrustable(f"names a file that cannot be read: {error.strerror}") from None
    return context
