"""A carrier that costs as little as possible: takes each call at once, and sends four signed callbacks if asked to.

An order with asynchronous machine detection gets a fifth one, with the verdict.

    python -m tests.benchmarks.minimal_carrier --port 21000 --callbacks

The simulated carrier keeps a journal, a pace and faults, and would take most of a core at these rates.
"""

import argparse
import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urldefrag

import aiohttp
from aiohttp import web

from standalone.simulator.callbacks import signature
from standalone.simulator.calls import rfc2822

ACCOUNT_SID, AUTH_TOKEN = "AC" + "7" * 32, "benchmark"
CALLBACKS = (("initiated", 0.05), ("ringing", 0.3), ("in-progress", 1.0), ("completed", 2.0))
"""Each status, and the seconds after the call was taken."""
_VERDICT_S = 1.5
"""Between answer and end, as for a person. On its own it would overtake the answer whenever callbacks wait, and calls
with a verdict would have fewer events than calls without one."""
_ACCOUNT = f"/2010-04-01/Accounts/{ACCOUNT_SID}"
_DURATION_S = 30
_MAX_CONCURRENT = 64


class MinimalCarrier:
    """Keeps the calls in memory. GET /arrivals returns them, and DELETE /arrivals forgets them."""

    def __init__(self, *, sends_callbacks: bool, answer_s: float) -> None:
        self.sends_callbacks = sends_callbacks
        self.answer_s = answer_s
        self._numbers = itertools.count(1)
        self._arrivals: list[tuple[str, float]] = []
        self._calls: dict[str, dict[str, object]] = {}
        self._by_number: dict[str, list[str]] = defaultdict(list)
        self._answer_s: list[float] = []
        self._lost = 0
        self._running: set[asyncio.Task[None]] = set()

    def app(self) -> web.Application:
        app = web.Application()
        app.cleanup_ctx.append(self._session_of)
        app.router.add_post(f"{_ACCOUNT}/Calls.json", self._create)
        app.router.add_get(f"{_ACCOUNT}/Calls.json", self._list)
        app.router.add_get(f"{_ACCOUNT}/Calls/{{sid}}.json", self._read)
        app.router.add_get("/arrivals", self._report)
        app.router.add_delete("/arrivals", self._forget)
        return app

    async def _session_of(self, _app: web.Application):  # type: ignore[no-untyped-def] # noqa: ANN202
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_MAX_CONCURRENT))
        yield
        await self._session.close()

    async def _create(self, request: web.Request) -> web.Response:
        arrived_at = time.time()
        form = await request.post()
        sid = f"CA{next(self._numbers):032x}"
        to = str(form["To"])
        call: dict[str, object] = {
            "sid": sid,
            "account_sid": ACCOUNT_SID,
            "to": to,
            "from": form["From"],
            "status": "queued",
            "queue_time": "0",
            "date_created": rfc2822(datetime.fromtimestamp(arrived_at, UTC)),
            "duration": None,
            "answered_by": None,
        }
        self._arrivals.append((to, arrived_at))
        self._calls[sid] = call
        self._by_number[to].append(sid)
        if self.sends_callbacks:
            verdict_url = urldefrag(str(form.get("AsyncAmdStatusCallback", ""))).url
            task = asyncio.create_task(self._call_back(call, urldefrag(str(form["StatusCallback"])).url, verdict_url))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        await asyncio.sleep(self.answer_s)
        return web.json_response(call, status=201)

    async def _call_back(self, call: dict[str, object], url: str, verdict_url: str) -> None:
        began = time.monotonic()
        for place, (status, after_s) in enumerate(CALLBACKS):
            if status == "completed" and verdict_url:
                await asyncio.sleep(max(0.0, began + _VERDICT_S - time.monotonic()))
                await self._judge(call, verdict_url)
            await asyncio.sleep(max(0.0, began + after_s - time.monotonic()))
            call["status"] = status
            fields = {
                "CallSid": str(call["sid"]),
                "AccountSid": ACCOUNT_SID,
                "ApiVersion": "2010-04-01",
                "CallStatus": status,
                "Direction": "outbound-api",
                "From": str(call["from"]),
                "To": str(call["to"]),
                "SequenceNumber": str(place),
            }
            if status == "completed":
                call["duration"] = str(_DURATION_S)
                fields |= {"CallDuration": str(_DURATION_S), "SipResponseCode": "200"}
            await self._send(url, fields)

    async def _judge(self, call: dict[str, object], url: str) -> None:
        call["answered_by"] = "human"
        fields = {"CallSid": str(call["sid"]), "AccountSid": ACCOUNT_SID, "AnsweredBy": "human"}
        await self._send(url, fields | {"MachineDetectionDuration": "500"})

    async def _send(self, url: str, fields: Mapping[str, str]) -> None:
        """Send a callback until it is taken, five times at most, as Duecall's URLs ask for."""
        headers = {"X-Twilio-Signature": signature(AUTH_TOKEN, url, fields)}
        for _ in range(6):
            began = time.monotonic()
            try:
                async with self._session.post(url, data=fields, headers=headers) as answer:
                    await answer.read()
            except aiohttp.ClientError:
                continue
            self._answer_s.append(time.monotonic() - began)
            if answer.ok:
                return
        self._lost += 1

    async def _list(self, request: web.Request) -> web.Response:
        sids = self._by_number[request.query["To"]] if "To" in request.query else list(self._calls)[-50:]
        calls = [self._calls[sid] for sid in reversed(sids)]
        path = request.path
        paging = {"first_page_uri": path, "next_page_uri": None, "previous_page_uri": None, "uri": path}
        return web.json_response({**paging, "page": 0, "page_size": 50, "start": 0, "end": len(calls), "calls": calls})

    async def _read(self, request: web.Request) -> web.Response:
        call = self._calls.get(request.match_info["sid"])
        return web.json_response(call or {"code": 20404}, status=200 if call else 404)

    async def _report(self, request: web.Request) -> web.Response:
        """Return (number, Unix time) of the calls from place `from` on, and the callbacks' answer times in seconds."""
        begin = int(request.query.get("from", 0))
        return web.json_response(
            {"arrivals": self._arrivals[begin:], "answerSeconds": self._answer_s, "lost": self._lost}
        )

    async def _forget(self, _request: web.Request) -> web.Response:
        self._arrivals.clear()
        self._answer_s.clear()
        return web.json_response({})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--callbacks", action="store_true", help="send four callbacks for each call")
    parser.add_argument("--answer-s", type=float, default=0.0, help="seconds until a call is answered")
    chosen = parser.parse_args()
    carrier = MinimalCarrier(sends_callbacks=chosen.callbacks, answer_s=chosen.answer_s)
    web.run_app(carrier.app(), host="127.0.0.1", port=chosen.port, access_log=None, print=lambda *_: None)


if __name__ == "__main__":
    main()
