"""Facts about Twilio's published Calls API: equal to Twilio's own SDK, and the measure of all simulated traffic."""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, NamedTuple, get_args

import pytest
import requests
from twilio.http import HttpClient
from twilio.http.response import Response
from twilio.rest import Client
from twilio.rest.api.v2010.account.call import CallInstance
from twilio.rest.api.v2010.account.call.notification import NotificationInstance

from standalone.simulator.published_api import (
    CREATE,
    FETCH,
    LIST,
    LIST_NOTIFICATIONS,
    OPERATIONS,
    UPDATE,
    Fact,
    Kind,
    Operation,
    violations_of_answer,
    violations_of_request,
)
from tests.support.servers import ACCOUNT_SID as ACCOUNT
from tests.support.servers import PRIMARY, a_carrier

SID = f"CA{1:032x}"
A_DATE = "Tue, 01 Dec 2026 20:00:00 +0000"
FORM = "application/x-www-form-urlencoded"

# ---- the facts and the SDK


class Sent(NamedTuple):
    """A request as the SDK builds it."""

    method: str
    path: str
    params: Mapping[str, Any]
    data: Mapping[str, Any]
    headers: Mapping[str, str]


class Recorder(HttpClient):  # type: ignore[misc] # its base ships no type information
    """Records the SDK's requests instead of sending them."""

    def __init__(self) -> None:
        super().__init__(None, False, None)
        self.sent: list[Sent] = []

    def request(self, method: str, url: str, params: Any = None, data: Any = None, **more: Any) -> Response:
        path = url.removeprefix("https://api.twilio.com")
        self.sent.append(Sent(method, path, params or {}, data or {}, more.get("headers") or {}))
        return Response(201 if method == "POST" and path.endswith("Calls.json") else 200, json.dumps({"calls": []}))


def _sdk() -> tuple[Any, Recorder]:
    recorder = Recorder()
    return Client(ACCOUNT, PRIMARY, http_client=recorder), recorder


def _methods(sdk: Any) -> dict[str, Callable[..., Any]]:
    call = sdk.calls(SID)
    return {
        CREATE.name: sdk.calls.create,
        UPDATE.name: call.update,
        FETCH.name: call.fetch,
        LIST.name: sdk.calls.page,
        LIST_NOTIFICATIONS.name: call.notifications.page,
    }


class Argument(NamedTuple):
    """An argument of the SDK: the parameter that it becomes, its types and its description."""

    parameter: str
    types: tuple[Any, ...]
    text: str


def _arguments(operation: Operation) -> dict[str, Argument]:
    """Read the arguments of an operation, each with the one parameter that only it adds to the request."""
    sdk, recorder = _sdk()
    method = _methods(sdk)[operation.name]
    signature = inspect.signature(method).parameters
    needed = {name: "+421915000001" for name, each in signature.items() if each.default is inspect.Parameter.empty}
    found = {}
    for name, each in signature.items():
        types = get_args(each.annotation) or (each.annotation,)
        method(**(needed | {name: _a_value(types)}))
        sent = recorder.sent[-1]
        method(**{other: value for other, value in needed.items() if other != name} | _other(name, needed))
        before = recorder.sent[-1]
        parameters = {**sent.params, **sent.data}
        [parameter] = [key for key, value in parameters.items() if {**before.params, **before.data}.get(key) != value]
        found[name] = Argument(parameter, types, _description(method, name))
    return found


def _other(name: str, needed: Mapping[str, str]) -> dict[str, str]:
    return {name: "+421915000002"} if name in needed else {}


def _a_value(types: tuple[Any, ...]) -> Any:
    if int in types:
        return 7
    if bool in types:
        return True
    if any("List" in str(each) or each is list for each in types):
        return ["a-word"]
    return "a-word"


def _description(method: Callable[..., Any], name: str) -> str:
    found = re.search(rf":param {name}: (.*)", method.__doc__ or "")
    return found[1] if found else ""


def test_operations_have_exactly_the_parameters_of_the_sdk() -> None:
    for operation in OPERATIONS:
        known = {each.parameter for each in _arguments(operation).values()}
        assert set(operation.parameters) == known, operation.name


def test_parameters_have_the_types_of_the_sdk() -> None:
    for operation in OPERATIONS:
        for argument in _arguments(operation).values():
            fact = operation.parameters[argument.parameter]
            assert (fact.kind is Kind.WHOLE) is (int in argument.types), argument
            assert fact.repeats is any("List" in str(each) for each in argument.types), argument
            assert (fact.kind is Kind.DATE) is bool({date, datetime} & {*argument.types}), argument
            if bool in argument.types:
                assert fact.words == ("true", "false")


def test_words_and_limits_are_those_that_the_sdk_describes() -> None:
    described = 0
    for argument in _arguments(CREATE).values():
        fact, text = CREATE.parameters[argument.parameter], argument.text
        if fact.words and "Can be" in text:
            said = re.findall(r"`([^`]+)`", text.split("Can be")[1].split(".")[0])
            assert set(said) == set(fact.words), argument
            described += 1
        for limit in re.findall(r"maximum is `(\d+)`|Max (\d+) characters|maximum length of (\d+)", text):
            assert str(fact.highest or 32) in limit, argument
            described += 1
        if limits := re.search(r"Possible Values: (\d+)-(\d+)", text):
            assert (str(fact.lowest), str(fact.highest)) == limits.groups()
            described += 1
    assert described >= 15


def test_required_parameters_are_those_without_a_default() -> None:
    for operation in OPERATIONS:
        signature = inspect.signature(_methods(_sdk()[0])[operation.name]).parameters
        arguments = _arguments(operation)
        needed = {arguments[name].parameter for name, each in signature.items() if each.default is each.empty}
        assert {name for name, fact in operation.parameters.items() if fact.is_required} == needed


def test_sdk_sends_parameters_as_the_facts_say() -> None:
    sdk, recorder = _sdk()
    for operation in OPERATIONS:
        method = _methods(sdk)[operation.name]
        method(**({"to": "+421915000001", "from_": "+421221020001"} if operation is CREATE else {}))
        sent = recorder.sent[-1]
        assert (sent.method == "POST") is operation.is_form
        assert not operation.is_form or sent.headers["Content-Type"] == FORM
        assert not sent.params or not operation.is_form
        assert sent.path.startswith(f"/2010-04-01/Accounts/{ACCOUNT}/Calls")


@pytest.mark.parametrize(
    ("operation", "instance"),
    [
        (FETCH, CallInstance(version=None, payload={}, account_sid=ACCOUNT)),
        (LIST_NOTIFICATIONS, NotificationInstance(version=None, payload={}, account_sid=ACCOUNT, call_sid=SID)),
    ],
    ids=["call", "notification"],
)
def test_fields_are_exactly_those_that_the_sdk_reads(operation: Operation, instance: Any) -> None:
    read = {name for name in vars(instance) if not name.startswith("_")}
    read |= {"from"} if operation is FETCH else set()
    of_one_alone = {"request_variables", "response_body", "response_headers"}
    assert set(operation.fields) == read - of_one_alone


def test_instants_are_the_fields_that_the_sdk_reads_as_such() -> None:
    dated = CallInstance(version=None, payload=dict.fromkeys(FETCH.fields, A_DATE), account_sid=ACCOUNT)
    instants = {name for name, value in vars(dated).items() if isinstance(value, datetime)}
    assert {name for name, fact in FETCH.fields.items() if fact.kind is Kind.INSTANT} == instants


def test_statuses_are_those_of_the_sdk() -> None:
    def words(of: type) -> set[str]:
        return {value for name, value in vars(of).items() if name.isupper()}

    assert set(FETCH.fields["status"].words) == set(LIST.parameters["Status"].words) == words(CallInstance.Status)
    assert set(UPDATE.parameters["Status"].words) == words(CallInstance.UpdateStatus)


# ---- requests


def asked(operation: Operation, parameters: str, *, content_type: str = FORM) -> list[str]:
    query, body = ("", parameters.encode()) if operation.is_form else (parameters, b"")
    return list(violations_of_request(operation, query=query, content_type=content_type, body=body))


MINIMAL = "To=%2B421915000001&From=%2B421221020001&Url=https%3A%2F%2Fexample.com%2Fvoice"


@pytest.mark.parametrize(
    "more",
    [
        pytest.param("", id="minimal"),
        pytest.param("&StatusCallbackEvent=initiated&StatusCallbackEvent=completed", id="events, one each"),
        pytest.param("&MachineDetection=Enable&AsyncAmd=true&MachineDetectionSpeechThreshold=6000", id="detection"),
        pytest.param("&StatusCallback=https%3A%2F%2Fexample.com%2Fa_b%23rc%3D5%26rp%3D5xx", id="overrides"),
        pytest.param("&Timeout=600&TimeLimit=11400&SendDigits=ww1%23", id="limits"),
    ],
)
def test_documented_order_has_no_violation(more: str) -> None:
    assert asked(CREATE, MINIMAL + more) == []


@pytest.mark.parametrize(
    ("operation", "parameters", "violation"),
    [
        (CREATE, f"{MINIMAL}&StatusCallBack=https%3A%2F%2Fexample.com", "an unknown parameter StatusCallBack"),
        (CREATE, f"{MINIMAL}&status_callback=x", "an unknown parameter status_callback"),
        (CREATE, f"{MINIMAL}&StatusCallbackEvent[]=initiated", "an unknown parameter StatusCallbackEvent[]"),
        (CREATE, f"{MINIMAL}&StatusCallbackEvent=initiated+ringing", "StatusCallbackEvent has an unknown word"),
        (CREATE, f"{MINIMAL}&MachineDetection=enable", "MachineDetection has an unknown word"),
        (CREATE, f"{MINIMAL}&MachineDetection=true", "MachineDetection has an unknown word"),
        (CREATE, f"{MINIMAL}&AsyncAmd=True", "AsyncAmd has an unknown word"),
        (CREATE, f"{MINIMAL}&Timeout=30.0", "Timeout is not a valid whole number"),
        (CREATE, f"{MINIMAL}&Timeout=601", "Timeout is not a valid whole number"),
        (CREATE, f"{MINIMAL}&MachineDetectionSpeechThreshold=6001", "MachineDetectionSpeechThreshold is not a valid"),
        (CREATE, f"{MINIMAL}&Timeout=30&Timeout=30", "Timeout is sent several times"),
        (CREATE, f"{MINIMAL}&FallbackUrl=https%3A%2F%2Fmy_app.example.com", "FallbackUrl is not a valid URL"),
        (CREATE, f"{MINIMAL}&FallbackUrl=%2Ffallback", "FallbackUrl is not a valid URL"),
        (CREATE, f"{MINIMAL}&StatusCallback=https%3A%2F%2Fe.com%2Fa%20b", "StatusCallback is not a valid URL"),
        (CREATE, f"{MINIMAL}&StatusCallbackMethod=post", "StatusCallbackMethod has an unknown word"),
        (CREATE, f"{MINIMAL}&CallReason={'x' * 51}", "CallReason is not a valid text"),
        (CREATE, MINIMAL.replace("%2B421915000001", "+421915000001"), "To is not a valid phone number"),
        (CREATE, MINIMAL.replace("To=%2B421915000001", "To=0915000001"), "To is not a valid phone number"),
        (CREATE, MINIMAL.split("&", 1)[1], "To is missing"),
        (CREATE, MINIMAL.rsplit("&", 1)[0], "no instructions"),
        (CREATE, f"{MINIMAL}&CallReason=100%", "not URL-encoded"),
        (CREATE, f"{MINIMAL}&CallReason=č", "not URL-encoded"),
        (CREATE, f"{MINIMAL}&CallReason=%FF", "not URL-encoded"),
        (CREATE, f"{MINIMAL}&Timeout", "not URL-encoded"),
        (CREATE, f"{MINIMAL}&CallReason=", "CallReason is not a valid text"),
        (UPDATE, "Status=cancelled", "Status has an unknown word"),
        (UPDATE, "Status=canceled&Timeout=3", "an unknown parameter Timeout"),
        (FETCH, "PageSize=1", "an unknown parameter PageSize"),
        (LIST, "PageSize=1001", "PageSize is not a valid whole number"),
        (LIST, "Direction=outbound-api", "an unknown parameter Direction"),
        (LIST, "StartTime%3E=2026-02-30", "StartTime> is not a valid date"),
        (LIST, "DateCreated%3E=2026-02-03", "an unknown parameter DateCreated>"),
        (LIST_NOTIFICATIONS, "Log=error", "Log is not a valid whole number"),
    ],
    ids=lambda each: str(each)[-60:],
)
def test_undocumented_parameter_is_a_violation(operation: Operation, parameters: str, violation: str) -> None:
    assert any(violation in found for found in asked(operation, parameters)), asked(operation, parameters)


def test_body_of_another_type_is_a_violation() -> None:
    assert "URL-encoded form" in asked(CREATE, MINIMAL, content_type="application/json")[0]
    found = violations_of_request(CREATE, query="To=1", content_type=FORM, body=MINIMAL.encode())
    assert list(found) == ["a POST with a query"]
    assert list(violations_of_request(FETCH, query="", content_type="", body=b"x")) == ["a GET with a body"]


# ---- answers

CALL: dict[str, Any] = dict.fromkeys(FETCH.fields) | {
    "sid": SID,
    "account_sid": ACCOUNT,
    "to": "+421915000001",
    "from": "+421221020001",
    "to_formatted": "+421915000001",
    "from_formatted": "+421221020001",
    "status": "queued",
    "date_created": A_DATE,
    "date_updated": A_DATE,
    "direction": "outbound-api",
    "api_version": "2010-04-01",
    "queue_time": "0",
    "uri": f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{SID}.json",
    "subresource_uris": {},
}


def test_documented_answers_have_no_violation() -> None:
    assert list(violations_of_answer(CREATE, 201, CALL)) == []
    full = {"duration": "15", "price": "-0.03000", "price_unit": "USD", "answered_by": "machine_start"}
    assert list(violations_of_answer(FETCH, 200, CALL | full | {"start_time": A_DATE})) == []
    older = {name: value for name, value in CALL.items() if name != "stir_verstat"}
    assert list(violations_of_answer(FETCH, 200, older)) == []
    refusal = {"code": 21211, "status": 400, "message": "no", "more_info": "https://www.twilio.com/docs/errors/21211"}
    assert list(violations_of_answer(CREATE, 400, refusal)) == []


@pytest.mark.parametrize(
    ("fields", "violation"),
    [
        ({"token": "x"}, "the answer has an unknown field token"),
        ({"sid": None}, "the answer's sid is null"),
        ({"sid": "CA1"}, "the answer's sid is not a valid call SID"),
        ({"status": "initiated"}, "the answer's status is not a valid"),
        ({"duration": 15}, "the answer's duration is not a valid"),
        ({"queue_time": 0}, "the answer's queue_time is not a valid"),
        ({"date_created": "2026-12-01T20:00:00Z"}, "the answer's date_created is not a valid"),
        ({"date_created": "Tue, 01 Dec 2026 20:00:00 GMT"}, "the answer's date_created is not a valid"),
        ({"direction": "outbound"}, "the answer's direction is not a valid"),
        ({"answered_by": "person"}, "the answer's answered_by is not a valid"),
        ({"subresource_uris": {"events": "Events.json"}}, "the answer's subresource_uris is not a valid"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_undocumented_answer_is_a_violation(fields: dict[str, Any], violation: str) -> None:
    found = list(violations_of_answer(CREATE, 201, CALL | fields))
    assert [each for each in found if each.startswith(violation)] == found != []


def test_missing_field_or_other_status_is_a_violation() -> None:
    assert list(violations_of_answer(CREATE, 200, CALL)) == ["status 200 instead of 201"]
    lacking = {name: value for name, value in CALL.items() if name != "direction"}
    assert list(violations_of_answer(FETCH, 200, lacking)) == ["the answer lacks direction"]
    page = {"calls": [lacking], "page": "0"}
    found = set(violations_of_answer(LIST, 200, page))
    assert {
        "the answer lacks direction",
        "the answer's page is not a valid JSON integer",
        "the answer lacks end",
    } <= found


def test_facts_without_words_or_limits_take_any_text() -> None:
    assert Fact().allows("x")
    assert not Fact().allows(7)


# ---- all traffic


@pytest.mark.parametrize(
    ("form", "difference"),
    [
        ({"Foo": "bar"}, "create: an unknown parameter Foo"),
        ({"Timeout": "0030s"}, "create: Timeout is not a valid whole number"),
    ],
    ids=["an unknown name", "a wrong type"],
)
def test_a_violation_fails_each_test_with_a_carrier(form: dict[str, str], difference: str) -> None:
    found = []
    with pytest.raises(AssertionError, match="published API"), a_carrier() as carrier:  # noqa: PT012 - at its end
        _order(carrier.url, form)
        found = carrier.verdict()["unlike_twilio"]
    assert difference in found


def test_documented_traffic_fails_no_test() -> None:
    with a_carrier() as carrier:
        _order(carrier.url, {"CallReason": "an interview"})
        assert carrier.verdict()["unlike_twilio"] == []


def _order(url: str, form: dict[str, str]) -> None:
    whole = {"To": "+421915000001", "From": "+421221020001", "Url": "https://example.com/voice", **form}
    requests.post(f"{url}/2010-04-01/Accounts/{ACCOUNT}/Calls.json", data=whole, auth=(ACCOUNT, PRIMARY), timeout=30)
