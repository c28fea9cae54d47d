"""From settings to the language model they name."""

from __future__ import annotations

import os
import re

from adstool.config_services import LlmSettings
from adstool.content.enrichment.chat import LOCAL, Chat
from adstool.errors import AdstoolError


def open_chat(settings: LlmSettings, *, asking: bool = True) -> Chat:
    """The model that the settings name; not `asking` (a dry run), no key is needed and no weights are loaded.

    Raises AdstoolError when the settings do not name a usable one.
    """
    if not settings.model:
        raise AdstoolError(
            "No language model is set: llm.model is empty.",
            'Set [llm] model = "NAME" and base_url in adstool.toml, or model = "local-dir:PATH".',
        )
    if settings.model.startswith(LOCAL):
        from adstool.content.enrichment.local_chat import LocalChat

        return LocalChat(settings, load=asking)
    from adstool.content.enrichment.http_chat import HttpChat

    return HttpChat(settings, read_key(settings.api_key_env) if asking else "")


def read_key(variable: str) -> str:
    """The key in the environment variable of this name; empty for no name.

    Raises AdstoolError when there is none. The text given is not repeated: it may be a key put there by
    mistake.
    """
    if not variable:
        return ""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise AdstoolError(
            "llm.api_key_env must be the name of an environment variable.",
            'Put the key into a variable and name it: api_key_env = "OPENAI_API_KEY".',
        )
    key = os.environ.get(variable, "").strip()
    if not key:
        raise AdstoolError(
            "The environment variable that llm.api_key_env names is not set or empty.",
            "Export it with the endpoint's key, or set api_key_env to nothing for an endpoint without keys.",
        )
    if not key.isascii() or not key.isprintable():
        raise AdstoolError(
            "The key in the variable that llm.api_key_env names is not printable ASCII.",
            "Export the key again, without line feeds or other marks.",
        )
    return key
