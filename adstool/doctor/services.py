"""Checks of what a workspace works with: the language model's key and the server's port and token."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from adstool.config import Settings
from adstool.doctor.finding import Check, fault, fit, odd
from adstool.errors import AdstoolError


def service_checks(settings: Settings) -> Iterator[Check]:
    """All of them; nothing is asked over a network."""
    if settings.llm.model:
        yield language_model(settings)
    yield port(settings)
    yield token(settings)


def language_model(settings: Settings) -> Check:
    """Whether what `enrich --with llm` needs is set."""
    from adstool.content.enrichment.connect import read_key

    llm = settings.llm
    if llm.model.startswith("local-dir:"):
        return fit("language model", llm.model)
    try:
        key = read_key(llm.api_key_env)
    except AdstoolError as error:
        return fault("language model", error.message, error.hint)
    host = urlsplit(llm.base_url).hostname or ""
    proxy = getproxies().get(urlsplit(llm.base_url).scheme, "")
    through = (
        "" if not proxy or proxy_bypass(host) or host in ("127.0.0.1", "localhost") else ", through a proxy"
    )
    found = f"{llm.model} at {host}{through}, {'with a key' if key else 'without a key'}"
    if not key and host not in ("127.0.0.1", "localhost", "::1"):
        mend = "Name the variable that holds its key: llm.api_key_env, if it needs one."
        return odd("language model", found, mend)
    return fit("language model", found)


def port(settings: Settings) -> Check:
    """Whether `serve` could listen now."""
    host, number = settings.serve.host, settings.serve.port
    if number == 0:
        return fit("port", "any free one")
    try:
        family = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as asked:
            if os.name != "nt":
                asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            asked.bind((host, number))
    except OSError as error:
        found = f"{host}:{number} cannot be listened at: {error.strerror or error}"
        return odd("port", found, "If that is not adstool serve itself: adstool serve --port 0")
    return fit("port", f"{host}:{number} is free")


def token(settings: Settings) -> Check:
    """Whether the token that callers of `serve` need is there."""
    name = settings.serve.token_env
    if name and not os.environ.get(name):
        return odd(
            "token",
            f"serve.token_env names {name}, which is not set here",
            f"export {name}=TOKEN before serve",
        )
    if not name and settings.serve.host not in ("127.0.0.1", "localhost", "::1"):
        mend = "Name the variable that holds a token: serve.token_env"
        return odd("token", f"anybody who reaches {settings.serve.host} may ask `serve`", mend)
    return fit("token", f"in {name}" if name else "none, and only this machine is listened to")
