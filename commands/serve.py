"""adstool serve: slates over HTTP."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from adstool.commands._context import open_workspace
from adstool.commands._help import add_verb
from adstool.commands._options import Group, option
from adstool.commands._output import emit, say
from adstool.errors import AdstoolError


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    add_verb(
        app,
        serve,
        "adstool serve --port 8080",
        "SERVE_TOKEN=secret adstool serve --token-env SERVE_TOKEN --deadline-ms 200",
    )


def serve(
    context: typer.Context,
    host: Annotated[
        str | None,
        option(Group.RUNNING, "The address to listen at.", "--host", metavar="ADDRESS", setting="serve.host"),
    ] = None,
    port: Annotated[
        int | None,
        option(
            Group.RUNNING,
            "The port; 0 takes any free one.",
            "--port",
            min=0,
            max=65535,
            metavar="N",
            setting="serve.port",
        ),
    ] = None,
    token_env: Annotated[
        str | None,
        option(
            Group.RUNNING,
            "The environment variable that holds the token callers need.",
            "--token-env",
            metavar="NAME",
            setting="serve.token_env",
        ),
    ] = None,
    search: Annotated[
        bool | None,
        option(
            Group.RUNNING,
            "Answer POST /search, too, by a process of its own, since it loads torch.",
            "--search",
            setting="serve.search",
        ),
    ] = None,
    deadline_ms: Annotated[
        float | None,
        option(
            Group.LIMITS,
            "Milliseconds after which an answer is none.",
            "--deadline-ms",
            min=1,
            metavar="MS",
            setting="serve.deadline_ms",
        ),
    ] = None,
    queue: Annotated[
        int | None,
        option(
            Group.LIMITS,
            "Requests that may wait; beyond it 503.",
            "--queue",
            min=1,
            metavar="N",
            setting="serve.queue",
        ),
    ] = None,
) -> None:
    """Answer requests for slates over HTTP, until SIGTERM or Ctrl-C.

    POST /rank, with --search POST /search, GET /healthz, /readyz and /metrics; a bounded queue,
    deadlines, a token; newer models and indexes are taken up while it runs. It needs pip install
    'adstool[serve]'.
    """
    flags = {
        "serve.host": host,
        "serve.port": port,
        "serve.token_env": token_env,
        "serve.search": search,
        "serve.deadline_ms": deadline_ms,
        "serve.queue": queue,
    }
    workspace, settings = open_workspace(context, flags)
    try:
        from adstool.server.run import serve as run
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette", "prometheus_client"):
            raise
        raise AdstoolError(
            f"serve needs {error.name}, which is not installed.", "pip install 'adstool[serve]'"
        ) from None
    done = run(workspace, settings, lambda address: _announce(address))
    if emit(context, done):
        return
    say(
        context,
        f"{done['answered']:,} requests answered, {done['refused']:,} refused, {done['failed']:,} failed.",
    )
    say(context, f"{done['log_rows']:,} candidates in the funnel log.")


def _announce(address: str) -> None:
    # On stderr, since with --json stdout is the one object at the end.
    sys.stderr.write(f"Serving at {address}; Ctrl-C stops it.\n")
    sys.stderr.flush()
