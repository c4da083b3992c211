"""The probe of the voice server, which instructs the carrier about answered calls."""

import requests
from requests.exceptions import RequestException

from scheduler import process
from scheduler.carriers.interface import QueryNotSent
from scheduler.carriers.twilio import TwilioAccount, trusted
from scheduler.exchange import Exchange, ExchangeAdapter

PROBE_S = 2.0
"""The time for a whole probe."""
_GOOD = range(200, 300)


class HttpVoiceServer:
    """Probes the voice server, from threads."""

    def __init__(self, account: TwilioAccount) -> None:
        address, _, _ = account.voice_url.partition("#")  # overrides of the carrier's connection
        self._url = f"{address}{'&' if '?' in address else '?'}probe=1"
        self._trusted = trusted(account.ca_file)

    def answers(self) -> bool:
        """Return True if the server answers a GET with a status of success in time. It starts no conversation.

        Raises QueryNotSent if this machine could not open a connection.
        """
        try:
            with requests.Session() as session, Exchange(PROBE_S) as exchange:
                session.trust_env = False
                for scheme in ("https://", "http://"):
                    session.mount(scheme, ExchangeAdapter(self._trusted))
                response = session.get(self._url, timeout=PROBE_S, allow_redirects=False, stream=True)
                exchange.remaining_s()
                return response.status_code in _GOOD
        except (RequestException, TimeoutError) as error:
            if process.is_shortage(error):
                process.report_shortage()
                raise QueryNotSent from error
            return False
