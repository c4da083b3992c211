"""Pages and forms of acts, as a browser shows and sends them."""

import re
from html import unescape

import httpx

_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')


def form_in(page: httpx.Response) -> dict[str, str]:
    """Read the hidden fields of the form."""
    return {name: unescape(value) for name, value in _HIDDEN.findall(page.text)}


def send(client: httpx.Client, address: str, **fields: str) -> httpx.Response:
    """Open the form of an act and send it."""
    form = form_in(client.get(address))
    assert "token" in form
    return client.post(address.partition("?")[0], data={**form, **fields})


def words(page: httpx.Response) -> str:
    """Read the text of a page without its tags, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page.text)).split())


def figure(page: httpx.Response, label: str) -> str:
    """Read the value of a figure of the page Now."""
    found = re.search(rf"<dt>{label}</dt>\s*<dd>\s*<\w+ [^>]*>([^<]*)<", page.text)
    assert found, label
    return found[1]
