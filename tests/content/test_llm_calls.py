"""Asking a language model over HTTP: each fault of an endpoint and what follows from it."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from llm_server import LlmServer, Reply, Request, Script, llm_server

from adstool.config_services import LlmSettings
from adstool.content.enrichment.calls import IN_A_ROW, MISFITS_IN_A_ROW, Caller, Outcome, ask_all
from adstool.content.enrichment.chat import estimate_tokens
from adstool.content.enrichment.connect import open_chat
from adstool.content.enrichment.http_chat import retry_after
from adstool.content.enrichment.prompts import Messages
from adstool.content.enrichment.schema import parse_grade
from adstool.errors import AdstoolError

MESSAGES: Messages = [{"role": "system", "content": "s" * 40}, {"role": "user", "content": "u" * 40}]
KEY = "sk-very-secret-0123456789"


def settings(server: LlmServer | None = None, **given: Any) -> LlmSettings:
    usual: dict[str, Any] = {
        "base_url": server.url if server else "http://127.0.0.1:9/v1",
        "model": "m",
        "timeout_seconds": 2.0,
        "backoff_seconds": 0.005,
        "max_retries": 2,
        "concurrency": 2,
    }
    return LlmSettings(**{**usual, **given})


def caller(limits: LlmSettings) -> Caller:
    return Caller(open_chat(limits), limits)


def grade(_: Request, __: int) -> Reply:
    return Reply('{"grade": 4}')


def first(fault: Reply, then: Reply | None = None) -> Script:
    """A script whose first reply is a fault."""
    return lambda _, number: fault if number == 1 else then or Reply('{"grade": 4}')


def asked(server: LlmServer, **given: Any) -> tuple[Outcome[int], Caller]:
    found = caller(settings(server, **given))
    return found.ask_for(MESSAGES, parse_grade), found


def test_a_request_is_what_the_protocol_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    with llm_server(grade) as server:
        outcome, done = asked(server, api_key_env="THE_KEY", max_output_tokens=77)
        (request,) = server.requests
    assert outcome == Outcome(4, tokens_in=100, tokens_out=10)
    assert (done.usage.calls, done.usage.tokens_in, done.usage.tokens_out) == (1, 100, 10)
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.payload == {
        "model": "m",
        "messages": MESSAGES,
        "temperature": 0.0,
        "max_tokens": 77,
        "response_format": {"type": "json_object"},
    }


@pytest.mark.parametrize(
    "fault",
    [
        Reply(status=500, body=b"oops"),
        Reply(status=503, body=b"{}"),
        Reply(status=429, body=b'{"error": {"message": "slow down"}}'),
        Reply(body=b'{"choices": [{"mess'),
        Reply(body=b"<html>a proxy</html>"),
        Reply(body=b'{"choices": []}'),
        Reply(body=b'{"choices": [{"message": {"content": null}}]}'),
        Reply(body=b"[" * 100_000),
    ],
    ids=["500", "503", "429", "cut", "html", "empty", "null", "deep"],
)
def test_a_passing_fault_is_tried_again(fault: Reply) -> None:
    with llm_server(first(fault)) as server:
        outcome, done = asked(server)
    assert outcome.value == 4
    assert done.usage.calls == 2
    assert done.usage.tokens == 110  # what failed was not counted by anybody


def test_retries_end_and_the_reason_is_told() -> None:
    with llm_server(lambda *_: Reply(status=500, body=b'{"error": {"message": "disk full"}}')) as server:
        outcome, done = asked(server)
    assert outcome.value is None
    assert outcome.problem is None
    assert outcome.failure is not None
    assert "500: disk full" in outcome.failure
    assert done.usage.calls == 3


def test_retry_after_is_waited_for_by_all() -> None:
    times: list[float] = []

    def script(_: Request, number: int) -> Reply:
        times.append(time.monotonic())
        return Reply(status=429, headers={"Retry-After": "0.4"}) if number == 1 else Reply('{"grade": 4}')

    with llm_server(script) as server:
        many = caller(settings(server, concurrency=1))
        found = dict(ask_all(many, range(3), lambda _: MESSAGES, parse_grade))
    assert [found[key].value for key in range(3)] == [4, 4, 4]
    assert times[1] - times[0] >= 0.4


def test_retry_after_is_read_as_seconds_or_a_date() -> None:
    assert retry_after("3") == 3.0
    assert retry_after(None) is None
    assert retry_after("soon") is None
    assert retry_after("nan") is None
    late = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True))
    assert late is not None
    assert 45 < late <= 50
    assert retry_after(format_datetime(datetime.now(UTC) - timedelta(seconds=50))) == 0.0


def test_a_pause_too_long_ends_the_run_in_order() -> None:
    with llm_server(lambda *_: Reply(status=429, headers={"Retry-After": "3600"})) as server:
        many = caller(settings(server, concurrency=1))
        assert list(ask_all(many, range(5), lambda _: MESSAGES, parse_grade)) == []
    assert many.stopped == "the endpoint asks to wait 3,600 s"
    assert many.usage.calls == 1


@pytest.mark.parametrize("slow", [Reply('{"grade": 1}', delay=1.0), Reply('{"grade": 1}', drip=0.02)])
def test_a_slow_answer_is_given_up_at_the_timeout(slow: Reply) -> None:
    with llm_server(first(slow)) as server:
        started = time.monotonic()
        outcome, done = asked(server, timeout_seconds=0.25)
        seconds = time.monotonic() - started
    assert outcome.value == 4
    assert done.usage.calls == 2
    assert seconds < 0.9


def test_a_slow_answer_within_the_timeout_is_taken() -> None:
    with llm_server(lambda *_: Reply('{"grade": 2}', delay=0.3)) as server:
        outcome, done = asked(server)
    assert outcome.value == 2
    assert done.usage.calls == 1


def test_a_refused_connection_fails_and_stops_the_run_when_it_stays() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    limits = settings(base_url=f"http://127.0.0.1:{port}/v1", concurrency=1)
    outcome = caller(limits).ask_for(MESSAGES, parse_grade)
    assert outcome.failure is not None
    assert "cannot be reached" in outcome.failure
    many = caller(limits)
    found = []
    with pytest.raises(AdstoolError, match=f"{IN_A_ROW} requests in a row") as caught:
        found.extend(ask_all(many, range(100), lambda _: MESSAGES, parse_grade))
    assert len(found) == IN_A_ROW - 1
    assert "base_url" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "key"), (403, "key"), (404, "base_url"), (302, "base_url")]
)
def test_what_no_retry_can_mend_ends_the_run_at_once(status: int, hint: str) -> None:
    reply = Reply(status=status, body=b"{}", headers={"Location": "http://127.0.0.1:9/"})
    with llm_server(lambda *_: reply) as server:
        many = caller(settings(server, concurrency=1))
        with pytest.raises(AdstoolError) as caught:
            list(ask_all(many, range(5), lambda _: MESSAGES, parse_grade))
        assert len(server.requests) == 1
    assert hint in caught.value.hint


def test_a_request_that_is_refused_is_not_repeated() -> None:
    with llm_server(lambda *_: Reply(status=400, body=b'{"error": {"message": "too long"}}')) as server:
        outcome, done = asked(server)
    assert outcome.failure is not None
    assert "too long" in outcome.failure
    assert done.usage.calls == 1


@pytest.mark.parametrize("unfit", ["no JSON", '{"grade": 9}', '{"grade": "4"}', '{"grade": true}', "[4]"])
def test_an_unfit_answer_is_sent_back_once_with_the_reason(unfit: str) -> None:
    with llm_server(first(Reply(unfit))) as server:
        outcome, done = asked(server)
        again = server.requests[1].payload["messages"]
    assert outcome == Outcome(4, tokens_in=200, tokens_out=20)
    assert again[:2] == MESSAGES
    assert again[2] == {"role": "assistant", "content": unfit}
    assert "cannot be used" in again[3]["content"]
    with llm_server(lambda *_: Reply(unfit)) as server:
        outcome, done = asked(server)
    assert outcome.value is None
    assert outcome.failure is None
    assert outcome.problem
    assert done.usage.calls == 2


def test_options_that_an_endpoint_does_not_know_are_given_up() -> None:
    refusals = {
        "max_tokens": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
        "temperature": "'temperature' does not support 0.0 with this model.",
        "response_format": "response_format is not supported",
    }

    def picky(request: Request, _: int) -> Reply:
        for name, message in refusals.items():
            if name in request.payload:
                return Reply(status=400, body=json.dumps({"error": {"message": message}}).encode())
        return Reply('{"grade": 4}')

    with llm_server(picky) as server:
        outcome, done = asked(server, max_output_tokens=33)
        assert outcome.value == 4
        assert len(server.requests) == 4
        assert done.ask_for(MESSAGES, parse_grade).value == 4
        assert len(server.requests) == 5  # it is remembered
        assert server.requests[-1].payload == {
            "model": "m",
            "messages": MESSAGES,
            "max_completion_tokens": 33,
        }


def test_a_model_that_never_answers_in_the_schema_is_not_paid_for_a_whole_catalogue() -> None:
    with llm_server(lambda *_: Reply("I cannot do that.")) as server:
        many = caller(settings(server, concurrency=1))
        answers = ask_all(many, range(1000), lambda _: MESSAGES, parse_grade)
        found = [next(answers)[1].problem for _ in range(MISFITS_IN_A_ROW - 1)]
        with pytest.raises(AdstoolError, match="20 answers in a row") as caught:
            next(answers)
        assert len(server.requests) == 2 * MISFITS_IN_A_ROW
    assert all(problem and "not JSON" in problem for problem in found)
    assert "model" in caught.value.hint


def test_a_dry_run_needs_no_key_and_no_weights(tmp_path: Path) -> None:
    assert open_chat(settings(api_key_env="NOT_SET_ANYWHERE"), asking=False).name == "m"
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    chat = open_chat(settings(model=f"local-dir:{tmp_path}"), asking=False)
    assert chat.name == f"local-dir:{tmp_path.name}"


def test_a_proxy_is_not_asked_for_an_endpoint_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with llm_server(grade) as server:
        assert asked(server, max_retries=0)[0].value == 4


def test_as_many_at_once_as_set_and_no_more() -> None:
    with llm_server(lambda *_: Reply('{"grade": 3}', delay=0.1)) as server:
        many = caller(settings(server, concurrency=5))
        started = time.monotonic()
        assert len(list(ask_all(many, range(20), lambda _: MESSAGES, parse_grade))) == 20
        seconds = time.monotonic() - started
        assert server.most_at_once == 5
    assert seconds < 1.5  # one after the other they take 2


def test_the_budget_of_calls_is_kept_with_many_threads() -> None:
    with llm_server(grade) as server:
        many = caller(settings(server, concurrency=8, max_calls=11))
        found = list(ask_all(many, range(50), lambda _: MESSAGES, parse_grade))
        assert len(server.requests) == 11
    assert len(found) == 11
    assert many.stopped == "llm.max_calls = 11 is reached"


def test_the_budget_of_tokens_is_kept_where_prompts_have_more_tokens_than_estimated() -> None:
    assert estimate_tokens(MESSAGES) < 30  # the server counts 100
    most = 100 + 30
    with llm_server(grade) as server:
        limits = settings(server, concurrency=4, max_tokens=1000, max_output_tokens=30)
        many = caller(limits)
        found = list(ask_all(many, range(50), lambda _: MESSAGES, parse_grade))
    assert many.usage.tokens == 110 * len(found)
    assert 1000 - 4 * most - 110 < many.usage.tokens <= 1000
    assert many.stopped is not None
    assert "max_tokens" in many.stopped


def test_an_interrupt_leaves_no_thread_asking() -> None:
    with llm_server(grade) as server:
        many = caller(settings(server, concurrency=2))
        answers = ask_all(many, range(10_000), lambda _: MESSAGES, parse_grade)
        next(answers)
        answers.close()
        time.sleep(0.2)
        count = len(server.requests)
        time.sleep(0.2)
        assert len(server.requests) == count
    assert not any(
        thread.name.startswith("Thread") and "work" in thread.name for thread in threading.enumerate()
    )


def test_the_key_is_in_no_message(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    body = json.dumps(
        {"error": {"message": f"Incorrect API key provided: {KEY}, and 'Bearer {KEY}'"}}
    ).encode()
    with (
        caplog.at_level(logging.DEBUG),
        llm_server(first(Reply(status=500, body=body), Reply(status=401, body=body))) as server,
    ):
        many = caller(settings(server, api_key_env="THE_KEY"))
        with pytest.raises(AdstoolError) as caught:
            many.ask(MESSAGES)
    said = caught.value.message + caught.value.hint + caplog.text
    assert "Incorrect API key provided" in said
    assert KEY not in said
    assert "0123456789" not in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": ""}, "No language model"),
        ({"api_key_env": KEY}, "name of an environment variable"),
        ({"api_key_env": "NOT_SET_ANYWHERE"}, "not set"),
        ({"base_url": "ftp://x/v1"}, "http"),
        ({"base_url": f"http://user:{KEY}@host/v1"}, "user or password"),
        ({"model": "local-dir:/nowhere"}, "config.json"),
    ],
)
def test_settings_that_cannot_work_are_told_without_their_secrets(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(AdstoolError, match=message) as caught:
        open_chat(settings(**given))
    assert caught.value.hint
    assert KEY not in caught.value.message + caught.value.hint
