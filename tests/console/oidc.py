"""A console whose operators sign in with a real identity provider on loopback."""

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from pydantic import SecretStr

from console.app import create_app
from console.sessions import ConsoleSessions
from console.stores.sessions import ConsoleSession
from scheduler.settings import Settings
from tests.support.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider
from tests.support.servers import a_door, a_server, address_of

COOKIE = "duecall-sign-in"


@dataclass(frozen=True, kw_only=True)
class OidcConsole:
    url: str
    provider: IdentityProvider
    sessions: ConsoleSessions
    headers: dict[str, str]

    def browser(self) -> httpx.Client:
        own = {"Sec-Fetch-Site": "same-origin", **self.headers}
        return httpx.Client(base_url=self.url, headers=own, timeout=30, verify=False)

    def start(self, browser: httpx.Client) -> str:
        """Press the button, and return the address of the provider to which the page leads."""
        return continued(browser.post("/sign-in/oidc"))

    def finish(self, browser: httpx.Client, url: str) -> httpx.Response:
        """Let the provider send the browser back."""
        answer = httpx.get(url, timeout=30, verify=False)
        assert answer.status_code == httpx.codes.FOUND
        return browser.get(answer.headers["location"], headers={"Sec-Fetch-Site": "cross-site"})

    def sign_in(self, browser: httpx.Client) -> httpx.Response:
        return self.finish(browser, self.start(browser))

    def session(self) -> ConsoleSession:
        """Read the only session."""
        [session] = self.sessions.all()
        return session


@contextmanager
def served(settings: Settings, address: str | None = None) -> Iterator[str]:
    """Serve a console with these settings, and yield its address. A proxy may give it another `address`."""
    door = a_door()
    url = address_of(door)
    chosen = settings.model_copy(update={"console_url": address or url})
    with a_server(create_app(chosen), door):
        yield url


def with_provider(settings: Settings, issuer: str) -> Settings:
    return settings.model_copy(
        update={
            "console_oidc_issuer": issuer,
            "console_oidc_client_id": CLIENT_ID,
            "console_oidc_client_secret": SecretStr(CLIENT_SECRET),
        }
    )


def continued(page: httpx.Response) -> str:
    """Return the address to which a page leads by itself. Its link also leads there."""
    assert page.status_code == httpx.codes.OK, page.text
    found = re.search(r'<meta http-equiv="refresh" content="0; url=([^"]+)">', page.text)
    assert found
    assert f'<a href="{found[1]}"' in page.text
    return html.unescape(found[1])
