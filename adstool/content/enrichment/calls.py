"""Asking the language model many times: retries with backoff, a budget, several requests at once.

Threads ask and the caller's own thread takes the answers one by one, so that it alone writes them down.
"""

from __future__ import annotations

import math
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from adstool.config_services import LlmSettings
from adstool.content.enrichment.chat import Answer, Chat, PassingFailure, RefusedRequest, estimate_tokens
from adstool.content.enrichment.prompts import Messages, repair_messages
from adstool.content.enrichment.schema import SchemaProblem
from adstool.errors import AdstoolError
from adstool.progress import log

K = TypeVar("K")
T = TypeVar("T")

IN_A_ROW = 5  # requests without an answer after which the endpoint is taken to be down
MISFITS_IN_A_ROW = 20  # questions without a fitting answer after which the model is taken to be unable


class NoMore(Exception):
    """The run ends here, in order: a limit is reached or the endpoint asks for a long pause."""


@dataclass
class Usage:
    """What was asked so far; `calls` counts requests, retries too."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def tokens(self) -> int:
        """Prompts and answers together."""
        return self.tokens_in + self.tokens_out


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of one question: a value, or why an answer was unfit, or why there was none."""

    value: T | None = None
    problem: str | None = None  # the answers did not fit the schema
    failure: str | None = None  # no answer: worth asking again another time
    tokens_in: int = 0
    tokens_out: int = 0


class Caller:
    """A language model with the patience and the budget of the settings; safe to use from many threads."""

    def __init__(self, chat: Chat, settings: LlmSettings) -> None:
        self.chat = chat
        self.usage = Usage()
        self.stopped: str | None = None  # why the run ended before all was asked
        self._settings = settings
        self._reserved = 0
        self._longer = 1.0  # the most that a prompt had in tokens, as a multiple of the estimate
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._resume_at = 0.0
        self._failed_in_a_row = 0
        self._misfits_in_a_row = 0

    def end(self, reason: str | None = None) -> None:
        """Ask nothing more; requests under way may still be answered."""
        with self._lock:
            self.stopped = self.stopped or reason
        self._ended.set()

    @property
    def ended(self) -> bool:
        """Whether nothing more is asked."""
        return self._ended.is_set()

    def ask(self, messages: Messages) -> Answer:
        """One answer, after retries. Raises PassingFailure when the last one fails too, RefusedRequest,
        NoMore at the end of the budget, or AdstoolError when no request can succeed."""
        for attempt in range(self._settings.max_retries + 1):
            self._wait_until(self._resume_at)
            held = self._reserve(messages)
            try:
                answer = self.chat.answer(messages)
                self._learn(messages, answer)
            except PassingFailure as failure:
                self._settle(held, None)
                if attempt == self._settings.max_retries:
                    raise
                log.debug("asking again: %s", failure)
                self._back_off(attempt, failure.wait)
            except BaseException:
                self._settle(held, None)
                raise
            else:
                self._settle(held, answer)
                return answer
        raise AssertionError("unreachable")

    def ask_for(self, messages: Messages, parse: Callable[[str], T]) -> Outcome[T]:
        """The value that an answer parses to; an answer that does not is sent back once to be mended."""
        spent_in = spent_out = 0
        problem = ""
        request = messages
        for _ in range(2):
            try:
                answer = self.ask(request)
            except (PassingFailure, RefusedRequest) as failure:
                self._count_failure(str(failure))
                return Outcome(failure=str(failure), tokens_in=spent_in, tokens_out=spent_out)
            self._failed_in_a_row = 0
            spent_in, spent_out = spent_in + answer.tokens_in, spent_out + answer.tokens_out
            try:
                value = parse(answer.text)
            except SchemaProblem as found:
                problem = str(found)
                request = repair_messages(messages, answer.text, problem)
            else:
                self._misfits_in_a_row = 0
                return Outcome(value, tokens_in=spent_in, tokens_out=spent_out)
        self._count_misfit(problem)
        return Outcome(problem=problem, tokens_in=spent_in, tokens_out=spent_out)

    def _count_misfit(self, problem: str) -> None:
        with self._lock:
            self._misfits_in_a_row += 1
            many = self._misfits_in_a_row >= MISFITS_IN_A_ROW
        if many:
            raise AdstoolError(
                f"{MISFITS_IN_A_ROW} answers in a row did not fit the schema, the last: {problem}.",
                "Try another [llm] model, or more max_output_tokens; then --retry-rejected.",
            )

    def _count_failure(self, reason: str) -> None:
        with self._lock:
            self._failed_in_a_row += 1
            many = self._failed_in_a_row >= IN_A_ROW
        if many:
            raise AdstoolError(
                f"{IN_A_ROW} requests in a row got no answer, the last: {reason}.",
                "Check [llm] base_url and model, and that the endpoint is up; what was answered is kept.",
            )

    def _reserve(self, messages: Messages) -> int:
        """Tokens held for a request, so that requests at once cannot overdraw the budget together."""
        limits = self._settings
        with self._lock:
            most = math.ceil(estimate_tokens(messages) * self._longer) + limits.max_output_tokens
            if self._ended.is_set():
                raise NoMore
            if limits.max_calls and self.usage.calls >= limits.max_calls:
                raise NoMore(f"llm.max_calls = {limits.max_calls:,} is reached")
            if limits.max_tokens and self.usage.tokens + self._reserved + most > limits.max_tokens:
                raise NoMore(f"llm.max_tokens = {limits.max_tokens:,} would be passed")
            self.usage.calls += 1
            self._reserved += most
        return most

    def _learn(self, messages: Messages, answer: Answer) -> None:
        """Other vocabularies and languages take more tokens than characters by four: reserve as many."""
        with self._lock:
            self._longer = max(self._longer, answer.tokens_in / estimate_tokens(messages))

    def _settle(self, held: int, answer: Answer | None) -> None:
        with self._lock:
            self._reserved -= held
            if answer is not None:
                self.usage.tokens_in += answer.tokens_in
                self.usage.tokens_out += answer.tokens_out

    def _back_off(self, attempt: int, asked: float | None) -> None:
        """Wait before a retry: as long as the endpoint asks, and then all wait; else longer each time."""
        longest = self._settings.max_wait_seconds
        if asked is not None and asked > longest:
            raise NoMore(f"the endpoint asks to wait {asked:,.0f} s")
        own = min(self._settings.backoff_seconds * 2**attempt, longest) * random.uniform(0.5, 1.0)
        if asked is not None:
            with self._lock:
                self._resume_at = max(self._resume_at, time.monotonic() + asked)
        self._wait_until(time.monotonic() + max(own, asked or 0.0))

    def _wait_until(self, moment: float) -> None:
        delay = moment - time.monotonic()
        if delay > 0 and self._ended.wait(delay):
            raise NoMore


def ask_all(
    caller: Caller, keys: Iterable[K], write: Callable[[K], Messages], parse: Callable[[str], T]
) -> Iterator[tuple[K, Outcome[T]]]:
    """Ask for every key, several at once, and yield (key, outcome) as answers come, in no fixed order.

    `write` makes the request of a key and `parse` its value. It ends early, in order, when the budget does
    (caller.stopped says why). Raises AdstoolError, after what was answered, when no request can succeed.
    """
    waiting = iter(keys)
    taking = threading.Lock()
    done: queue.SimpleQueue[tuple[K, Outcome[T]] | Exception | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            while not caller.ended:
                with taking:
                    key = next(waiting, None)
                if key is None:
                    break
                done.put((key, caller.ask_for(write(key), parse)))
        except NoMore as reason:
            caller.end(str(reason) or None)
        except Exception as error:  # it belongs to the thread that takes the answers
            caller.end()
            done.put(error)
        finally:
            done.put(None)

    # Daemons: an interrupted run does not wait for the answers to requests under way.
    workers = [threading.Thread(target=work, daemon=True) for _ in range(caller.chat.parallel)]
    for worker in workers:
        worker.start()
    fatal: Exception | None = None
    try:
        for _ in workers:
            while (found := done.get()) is not None:
                if isinstance(found, Exception):
                    fatal = fatal or found
                else:
                    yield found
    finally:
        caller.end()
    if fatal is not None:
        raise fatal
