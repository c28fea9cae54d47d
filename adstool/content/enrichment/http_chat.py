"""A language model behind an OpenAI-compatible endpoint: Ollama, vLLM, llama.cpp's server, hosted ones.

Only the standard library: one POST to <base_url>/chat/completions a request. Redirects are not followed,
since the key would go along; the key is in the header and nowhere else.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from adstool import __version__
from adstool.config_services import LlmSettings
from adstool.content.enrichment.chat import (
    Answer,
    PassingFailure,
    RefusedRequest,
    checked_url,
    estimate_tokens,
)
from adstool.content.enrichment.prompts import Messages
from adstool.errors import AdstoolError
from adstool.progress import log

PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
HOPELESS = {401, 402, 403, 404, 405}  # the next request would get the same
LARGEST = 4 << 20  # bytes of a response; no answer asked for comes near


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Refuse."""


class HttpChat:
    """An endpoint and a model of it."""

    def __init__(self, settings: LlmSettings, key: str) -> None:
        self.name = settings.model
        self.parallel = max(settings.concurrency, 1)
        self._settings = settings
        self._url = checked_url(settings.base_url) + "/chat/completions"
        self._headers = {"Content-Type": "application/json", "User-Agent": f"adstool/{__version__}"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._key = key
        self._dropped: set[str] = set()  # options that the endpoint does not know
        # A machine's proxy is for the outside; what runs on this machine is asked directly.
        local = urlsplit(self._url).hostname in ("localhost", "127.0.0.1", "::1")
        proxies = [urllib.request.ProxyHandler({})] if local else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)

    def answer(self, messages: Messages) -> Answer:
        """Ask once. Raises as Chat.answer."""
        while True:
            options = self._options()
            payload = json.dumps({"model": self.name, "messages": messages, **options})
            try:
                return _read_answer(self._post(payload.encode()), messages)
            except RefusedRequest as refused:
                if not self._adapt(options, str(refused)):
                    raise

    def _options(self) -> dict[str, Any]:
        most = self._settings.max_output_tokens
        options: dict[str, Any] = {"temperature": self._settings.temperature}
        options |= {"max_completion_tokens": most} if "max_tokens" in self._dropped else {"max_tokens": most}
        if self._settings.json_mode:
            options["response_format"] = {"type": "json_object"}
        return {name: value for name, value in options.items() if name not in self._dropped}

    def _adapt(self, sent: dict[str, Any], refusal: str) -> bool:
        """Do without an option that a refusal names: endpoints differ in those they know. Whether to ask
        again; each option is given up once."""
        named = [name for name in sent if re.search(rf"\b{name}\b", refusal)]
        if not named:
            return False
        self._dropped |= set(named)
        log.debug("%s does not take %s", self._url, ", ".join(named))
        return True

    def _post(self, data: bytes) -> bytes:
        request = urllib.request.Request(self._url, data, self._headers, method="POST")
        deadline = time.monotonic() + self._settings.timeout_seconds
        try:
            with self._opener.open(request, timeout=self._settings.timeout_seconds) as response:
                return _read_body(response, deadline)
        except urllib.error.HTTPError as error:
            with error:
                raise self._explain(error) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise PassingFailure(self._late()) from None
            raise PassingFailure(f"{self._url} cannot be reached: {error.reason}") from None
        except TimeoutError:
            raise PassingFailure(self._late()) from None
        except (OSError, http.client.HTTPException) as error:
            raise PassingFailure(f"the connection broke: {type(error).__name__} {error}") from None

    def _late(self) -> str:
        return f"no answer within llm.timeout_seconds = {self._settings.timeout_seconds:g}"

    def _explain(self, error: urllib.error.HTTPError) -> Exception:
        said = _said(error, self._key)
        reason = f"{self._url} answered {error.code}{': ' + said if said else ''}"
        if error.code in PASSING:
            return PassingFailure(reason, retry_after(error.headers.get("Retry-After")))
        if error.code in HOPELESS:
            hint = (
                "Check base_url and model in [llm]."
                if error.code in (404, 405)
                else "Check the key in the variable that [llm] api_key_env names, and the account."
            )
            return AdstoolError(f"The language model cannot be used: {reason}.", hint)
        if 300 <= error.code < 400:
            return AdstoolError(
                f"{self._url} redirects elsewhere, which is not followed.",
                "Set [llm] base_url to the new address.",
            )
        return RefusedRequest(reason)


def retry_after(header: str | None) -> float | None:
    """Seconds to wait that a Retry-After header asks for, as a number or an HTTP date; None for none."""
    if not header:
        return None
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", header):
        return float(header)
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)


def _read_body(response: Any, deadline: float) -> bytes:
    """The whole body; a socket's timeout is for each read alone, so the deadline is watched between them."""
    parts: list[bytes] = []
    size = 0
    while part := response.read1(65536):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise PassingFailure(f"the response is larger than {LARGEST:,} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(parts)


def _read_answer(body: bytes, messages: Messages) -> Answer:
    try:
        value = json.loads(body)
        text = value["choices"][0]["message"]["content"]
        usage = value.get("usage") or {}
        counted = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise PassingFailure("the response is not a chat completion in JSON") from None
    if not isinstance(text, str):
        raise PassingFailure("the response holds no text")
    guessed = [estimate_tokens(messages), estimate_tokens([{"content": text}])]
    known = [
        count if isinstance(count, int) and count >= 0 else guess
        for count, guess in zip(counted, guessed, strict=True)
    ]
    return Answer(text, *known)


def _said(error: urllib.error.HTTPError, key: str) -> str:
    """What the endpoint says of an error, short and on one line.

    An endpoint may repeat the key or a part of it, so the key and all words that look like one are left out.
    """
    try:
        value = json.loads(error.read(4096))
        said = value["error"]["message"] if isinstance(value["error"], dict) else value["error"]
    except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException, RecursionError):
        return ""
    text = str(said).replace(key, "...") if key else str(said)
    return " ".join(word for word in text.split() if len(word) < 25)[:200]
