"""adstool serve: slates over HTTP."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from adstool.commands._context import open_workspace
from adstool.commands._output import emit, say
from adstool.errors import AdstoolError


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command("serve")(serve)


def serve(
    context: typer.Context,
    host: Annotated[
        str | None, typer.Option(help="The address to listen at; 127.0.0.1 if not given.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="8080 if not given; 0 takes any free one.")
    ] = None,
    token_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The environment variable that holds the token callers need."),
    ] = None,
    search: Annotated[
        bool | None, typer.Option("--search", help="Answer POST /search, too, by a process that loads torch.")
    ] = None,
    deadline_ms: Annotated[float | None, typer.Option(min=1, help="No answer is later than this.")] = None,
    queue: Annotated[int | None, typer.Option(min=1, help="Requests that may wait; beyond it 503.")] = None,
) -> None:
    """Answer POST /rank and /search, GET /healthz, /readyz and /metrics over HTTP until SIGTERM or Ctrl-C."""
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
