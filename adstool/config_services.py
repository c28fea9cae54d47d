"""Settings of what stands beside the funnel: language models, enrichment, the HTTP server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from adstool.errors import AdstoolError


@dataclass(frozen=True)
class LlmSettings:
    """Which language model enriches items, and what it may cost; limits are of one run, 0 is no limit."""

    base_url: str = "http://127.0.0.1:11434/v1"  # any OpenAI-compatible endpoint
    model: str = ""  # its name there, or local-dir:PATH for a transformers folder
    api_key_env: str = ""  # the NAME of the environment variable that holds the key, never the key
    timeout_seconds: float = 60.0  # for a whole answer
    concurrency: int = 4  # requests under way at once
    max_retries: int = 4  # of a request that failed in passing: 429, 5xx, timeout, broken JSON
    backoff_seconds: float = 1.0  # before the first retry; doubled for each further one, with jitter
    max_wait_seconds: float = 120.0  # an endpoint that asks to wait longer ends the run
    max_calls: int = 0  # requests, retries included
    max_tokens: int = 0  # of prompts and answers together
    temperature: float = 0.0
    max_output_tokens: int = 300  # of one answer
    json_mode: bool = True  # ask for response_format json_object
    price_in: float = 0.0  # money a million prompt tokens, for the estimate
    price_out: float = 0.0  # money a million answer tokens


@dataclass(frozen=True)
class EnrichmentSettings:
    """How items get their attributes."""

    vocabulary: str = ""  # a TOML file of attribute words for CLIP; empty: the one that ships with adstool
    min_confidence: float = 0.5  # CLIP's share for a word below which it is not given
    min_agreement: float = (
        0.5  # with the words in the texts, below which CLIP is not believed on an attribute
    )
    unchecked: bool = False  # take CLIP's choice also where too few texts name a word to judge it by
    relevance_pairs: int = 500  # logged pairs of a query and an item that the language model grades
    query_users: int = 2  # a query goes to the language model only if so many users asked it


@dataclass(frozen=True)
class ServeSettings:
    """How `serve` answers over HTTP, and what it refuses."""

    host: str = "127.0.0.1"
    port: int = 8080  # 0: any free one
    token_env: str = ""  # the NAME of the environment variable that holds the bearer token, never the token
    search: bool = False  # answer POST /search, in a process of its own, since it needs torch
    deadline_ms: float = 1000.0  # an answer later than this is none; a request may ask for less
    queue: int = 64  # requests that may wait; beyond it 503
    max_batch: int = 64  # requests of one body
    max_body_bytes: int = 1_048_576
    stop_seconds: float = 10.0  # what is queued may take so long after a signal to stop
    refresh_seconds: float = 3.0  # how often newer models and indexes are looked for
    flush_seconds: float = 10.0  # how often the funnel log is written
    max_log_rows: int = 4_000_000  # candidates that may wait for a full disk; the oldest beyond are dropped


def refuse_secret(dotted: str, value: Any, where: str) -> None:
    """Raises AdstoolError, which does not repeat it, for what looks like a secret where its name belongs."""
    if dotted.endswith("_env") and value and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", str(value)):
        raise AdstoolError(
            f"{where}: {dotted} must be the name of an environment variable.",
            f'Put the secret into a variable and name it: {dotted.partition(".")[2]} = "MY_SECRET".',
        )
    if dotted.endswith("_url") and "@" in str(value).partition("?")[0]:
        raise AdstoolError(
            f"{where}: {dotted} holds a user or password.", "Name the key's variable in llm.api_key_env."
        )
