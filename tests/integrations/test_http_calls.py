"""One call over HTTP, from a saga's context to a participant's handler and back, through FastAPI, Starlette, httpx."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import fastapi
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from atone import Context, Reject, RetryAfter, Succeeded, Tried
from atone.errors import AlreadyCompensated, ArgumentsDiffer, Changed, DeadlockFound, InProgress, Locked
from atone.integrations.fastapi import (
    PROBLEMS,
    CompensationCall,
    SagaCall,
    add_problems,
    compensation_call,
    saga_call,
)
from atone.integrations.httpx import (
    blocking_event_hooks,
    call_headers,
    calling,
    event_hooks,
    raise_for_answer,
)

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = {"traceparent": PARENT, "tracestate": "vendor=1"}
CTX = Context(saga_id="order-1", input=None, idempotency_key="the key", attempt=3, trace_headers=TRACE)
TRIED: Tried[None] = Tried("the action's key", Succeeded(None))


class Shop:
    """A participant that does what it is told: raise, or answer whose call it was."""

    def __init__(self, raises: Exception | None = None) -> None:
        self.raises = raises
        self.calls: list[SagaCall | CompensationCall] = []

    def serve(self, call: SagaCall | CompensationCall) -> dict[str, str]:
        self.calls.append(call)
        if self.raises is not None:
            raise self.raises
        return {"key": call.idempotency_key}


def on_fastapi(shop: Shop) -> Any:
    app = fastapi.FastAPI(exception_handlers=dict(PROBLEMS))

    async def charge(call: Annotated[SagaCall, fastapi.Depends(saga_call)]) -> dict[str, str]:
        return shop.serve(call)

    async def refund(call: Annotated[CompensationCall, fastapi.Depends(compensation_call)]) -> dict[str, str]:
        return shop.serve(call)

    # Endpoints inside a function: FastAPI reads the names of their annotations from the module alone.
    app.post("/charges")(charge)
    app.post("/refunds")(refund)
    return app


def on_starlette(shop: Shop) -> Any:
    async def charge(request: Request) -> Response:
        return JSONResponse(shop.serve(await saga_call(request)))

    async def refund(request: Request) -> Response:
        return JSONResponse(shop.serve(await compensation_call(request)))

    app = Starlette(routes=[Route("/charges", charge, methods=["POST"]), Route("/refunds", refund, methods=["POST"])])
    add_problems(app)
    return app


@pytest.fixture(params=[on_fastapi, on_starlette], ids=["fastapi", "starlette"])
def app_of(request: pytest.FixtureRequest) -> Callable[[Shop], Any]:
    app_of: Callable[[Shop], Any] = request.param
    return app_of


def ask(app: Any, path: str = "/charges", **options: Any) -> httpx.Response:
    """Send one request to an application, in memory, as the current call."""

    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop", event_hooks=event_hooks()) as client:
            return await client.post(path, **options)

    return asyncio.run(main())


def test_an_action_s_call_arrives_whole(app_of: Callable[[Shop], Any]) -> None:
    """Key, saga id, attempt and trace context are what the step's context says, whatever the key holds."""
    shop = Shop()
    with calling(CTX):
        assert ask(app_of(shop)).json() == {"key": "the key"}
    assert shop.calls == [SagaCall("the key", "order-1", 3, TRACE)]


def test_a_compensation_s_call_names_the_action_too(app_of: Callable[[Shop], Any]) -> None:
    """Which action is to be undone, and a key of its own."""
    shop = Shop()
    with calling(CTX, TRIED):
        ask(app_of(shop), "/refunds")
    assert shop.calls == [CompensationCall("the key", "the action's key", "order-1", 3, TRACE)]


@pytest.mark.parametrize(
    "key", ["a b", " a ", "50%", "a%20b", "%41", "Bestellung-ä-✓-😀", "a\nb", "x" * 1500, '"a"', "a,b"]
)
def test_a_key_arrives_as_it_was_sent_whatever_it_holds(key: str) -> None:
    """Headers hold little; no two keys become the same one on the way."""
    shop = Shop()
    with calling(Context(saga_id=key[:300], input=None, idempotency_key=key)):
        assert ask(on_starlette(shop)).status_code == 200
    assert shop.calls == [SagaCall(key, key[:300], 1, {})]


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({}, "The header Idempotency-Key is missing"),
        ({"Idempotency-Key": ""}, "Idempotency-Key is a text of 1 to 1500"),
        ({"Idempotency-Key": "x" * 1501}, "Idempotency-Key is a text of 1 to 1500"),
        ({"Idempotency-Key": "x" * 20_000}, "Idempotency-Key is a text of 1 to 1500"),
        ({"Idempotency-Key": "50%"}, "%25 for a percent sign"),
        ({"Idempotency-Key": "a%41"}, "%25 for a percent sign"),
        ({"Idempotency-Key": "a%c3"}, "%25 for a percent sign"),
        ({"Idempotency-Key": "a%00"}, "without NUL"),
        ([("Idempotency-Key", "a"), ("Idempotency-Key", "b")], "Idempotency-Key is there 2 times"),
        ({"Idempotency-Key": "a", "Atone-Saga-Id": "x" * 301}, "Atone-Saga-Id is a text of 1 to 300"),
        ({"Idempotency-Key": "a", "Atone-Attempt": "0"}, "Atone-Attempt is a whole number"),
        ({"Idempotency-Key": "a", "Atone-Attempt": "1" * 5000}, "Atone-Attempt is a whole number"),
        ({"Idempotency-Key": "a", "Atone-Attempt": "-1"}, "Atone-Attempt is a whole number"),
    ],
)
def test_a_header_that_is_missing_or_malformed_is_a_problem_of_the_caller(
    app_of: Callable[[Shop], Any], headers: Any, says: str
) -> None:
    """A 400 that names the header and what to send; the handler is not reached."""
    shop = Shop()
    answer = ask(app_of(shop), headers=headers)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "message"
    assert says in answer.json()["detail"]
    assert shop.calls == []


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"Idempotency-Key": "a"}, "The header Atone-Action-Key is missing"),
        ({"Idempotency-Key": "a", "Atone-Action-Key": "a"}, "are the same"),
    ],
)
def test_a_compensation_without_its_action_is_a_problem_of_the_caller(headers: Any, says: str) -> None:
    """Under one key, the undo would be taken for a repeat of what it undoes."""
    answer = ask(on_starlette(Shop()), "/refunds", headers=headers)
    assert (answer.status_code, says in answer.json()["detail"]) == (400, True)


def test_a_trace_context_that_is_none_is_no_reason_to_refuse() -> None:
    """A trace is for watching; a saga does not fail for it."""
    shop = Shop()
    for parent in ("nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "x" * 10_000):
        assert ask(on_starlette(shop), headers={"Idempotency-Key": "a", "traceparent": parent}).status_code == 200
    assert {len(call.trace_headers) for call in shop.calls} == {0}


@pytest.mark.parametrize(
    ("raises", "status", "code"),
    [
        (AlreadyCompensated("was undone"), 409, "already_compensated"),
        (ArgumentsDiffer("other arguments"), 422, "arguments_differ"),
        (Reject("card declined"), 409, "rejected"),
        (RetryAfter(1.5, "busy"), 503, "retry_after"),
        (InProgress(1.5, "somebody else calls"), 503, "in_progress"),
        (Locked("two", "order/7", "one", 1.5), 503, "locked"),
        (DeadlockFound(("two", "one")), 409, "rejected"),
        (Changed("another version"), 409, "rejected"),
    ],
)
def test_what_a_participant_raises_is_a_problem_with_a_code(
    app_of: Callable[[Shop], Any], raises: Exception, status: int, code: str
) -> None:
    """Each exception has a status and a stable code, as RFC 9457 writes it."""
    answer = ask(app_of(Shop(raises)), headers=call_headers(CTX))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers.get("retry-after") == ("2" if status == 503 else None)


def test_what_nobody_expected_is_no_definite_answer(app_of: Callable[[Shop], Any]) -> None:
    """A 500 says nothing about the effect, and nothing about the exception either."""
    answer = ask(app_of(Shop(LookupError("a password"))), headers=call_headers(CTX))
    assert answer.status_code == 500
    assert "password" not in answer.text


@pytest.mark.parametrize(
    ("raises", "means"),
    [
        (None, None),
        (Reject("card declined"), Reject),
        (AlreadyCompensated("was undone"), Reject),
        (RetryAfter(7), RetryAfter),
        (ArgumentsDiffer("other arguments"), httpx.HTTPStatusError),
        (LookupError(), httpx.HTTPStatusError),
    ],
)
def test_an_answer_means_to_the_saga_what_the_participant_raised(
    raises: Exception | None, means: type[Exception] | None
) -> None:
    """Only a definite no is a rejection; whatever else is not a yes leaves the outcome unknown."""
    answer = ask(on_starlette(Shop(raises)), headers=call_headers(CTX))
    if means is None:
        assert raise_for_answer(answer) is answer
        return
    with pytest.raises(means) as told:
        raise_for_answer(answer)
    if isinstance(told.value, RetryAfter):
        assert told.value.seconds == 7
    if isinstance(told.value, Reject):
        assert told.value.reason == (raises.reason if isinstance(raises, Reject) else str(raises))


PROBLEM = {"content-type": "application/problem+json; charset=utf-8"}


@pytest.mark.parametrize(
    ("status", "headers", "content"),
    [
        (409, {"content-type": "application/json"}, b'{"code": "rejected"}'),  # somebody else's conflict
        (500, PROBLEM, b'{"code": "rejected"}'),  # a server that fails knows nothing for sure
        (409, PROBLEM, b"not json"),
        (409, PROBLEM, b"[1]"),
        (409, PROBLEM, b'{"code": ["rejected"]}'),
        (409, PROBLEM, b"[" * 30_000),
        (503, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, b""),
        (503, {"retry-after": "9" * 400}, b""),
        (429, {"retry-after": "-1"}, b""),
        (404, {"retry-after": "1"}, b""),
    ],
)
def test_an_answer_that_is_not_surely_a_no_is_none(status: int, headers: dict[str, str], content: bytes) -> None:
    """A proxy, a stranger or damage can't make a saga believe that nothing happened."""
    request = httpx.Request("POST", "http://shop/charges")
    with pytest.raises(httpx.HTTPStatusError):
        raise_for_answer(httpx.Response(status, headers=headers, content=content, request=request))


def test_a_header_of_the_step_s_own_stays_and_outside_of_a_call_there_is_none() -> None:
    """Who names a key by hand means it; a request that belongs to no call carries none."""
    shop = Shop()
    with calling(CTX):
        ask(on_starlette(shop), headers={"Idempotency-Key": "mine"})
    assert ask(on_starlette(shop)).status_code == 400
    assert [call.idempotency_key for call in shop.calls] == ["mine"]


def test_calls_side_by_side_do_not_mix() -> None:
    """Two steps share a client; each request carries the call that it was made in."""
    shop = Shop()

    async def main() -> None:
        transport = httpx.ASGITransport(on_starlette(shop))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop", event_hooks=event_hooks()) as client:

            async def step(name: str) -> None:
                with calling(Context(saga_id=name, input=None, idempotency_key=f"{name}'s key")):
                    for _ in range(3):
                        assert (await client.post("/charges")).json() == {"key": f"{name}'s key"}

            await asyncio.gather(*(step(f"saga-{at}") for at in range(10)))

    asyncio.run(main())
    assert {call.idempotency_key == f"{call.saga_id}'s key" for call in shop.calls} == {True}


def test_a_plain_client_names_the_call_as_well() -> None:
    """For steps that are plain functions."""
    seen: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(200)

    hooks: Any = blocking_event_hooks()
    with httpx.Client(transport=httpx.MockTransport(answer), event_hooks=hooks) as client, calling(CTX, TRIED):
        client.post("http://shop/refunds")
    (headers,) = seen
    assert {name: headers[name] for name in call_headers(CTX, TRIED)} == call_headers(CTX, TRIED)
