"""What a language model is to enrichment: messages in, one answer out, and how it may fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from adstool.content.enrichment.prompts import Messages
from adstool.errors import AdstoolError

LOCAL = "local-dir:"
CHARACTERS_PER_TOKEN = 4  # of English in the usual vocabularies; where an endpoint counts, its count is taken


@dataclass(frozen=True)
class Answer:
    """What the model wrote and what it cost."""

    text: str
    tokens_in: int
    tokens_out: int


class PassingFailure(Exception):
    """The request failed in a way that may pass; `wait` is how long the endpoint asked for, in seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class RefusedRequest(Exception):
    """The endpoint refuses this one request, whatever it is asked again."""


class Chat(Protocol):
    """A language model."""

    name: str  # part of the cache key
    parallel: int  # requests that may be under way at once

    def answer(self, messages: Messages) -> Answer:
        """Ask once. Raises PassingFailure, RefusedRequest, or AdstoolError when nothing more can succeed."""
        ...


def checked_url(base_url: str) -> str:
    """`base_url` without a slash at its end. Raises AdstoolError for anything but http or https."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AdstoolError(
            "llm.base_url is not an http or https address.", 'Write it like "http://127.0.0.1:11434/v1".'
        )
    if parts.username or parts.password:
        raise AdstoolError(
            "llm.base_url holds a user or password.", "Name the key's variable in api_key_env."
        )
    return base_url.rstrip("/")


def estimate_tokens(messages: Messages) -> int:
    """About how many tokens a request has: its characters by four, and four for each message's frame."""
    characters = sum(len(message["content"]) for message in messages)
    return -(-characters // CHARACTERS_PER_TOKEN) + 4 * len(messages)
