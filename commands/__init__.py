"""The command line: global options, lazy verbs, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from adstool import __version__
from adstool.commands._context import Globals
from adstool.errors import AdstoolError

# Verb -> the module that registers it, in the order in which a newcomer meets them.
VERBS = {
    "init": "init",
    "sample": "sample",
    "ingest": "ingest",
    "rejects": "rejects",
    "status": "status",
    "sql": "sql",
    "embed": "embed",
    "search": "search",
    "interests": "interests",
    "enrich": "enrich",
    "train": "train",
    "calibrate": "calibrate",
    "quantize": "quantize",
    "index": "index",
    "quota": "quota",
    "rank": "rank",
    "evaluate": "evaluate",
    "simulate": "simulate",
    "report": "report",
    "serve": "serve",
    "run": "run",
    "demo": "demo",
    "bench": "bench",
    "doctor": "doctor",
    "config": "config",
    "models": "models",
}

# Options a user may also write after the verb; all but these two-word ones are plain switches.
GLOBAL_SWITCHES = {"--json", "--quiet", "--verbose", "--debug"}
GLOBAL_VALUES = {"--workspace", "--config"}
INTERRUPTED = 130  # the exit code of Ctrl-C


def build_app(verb: str | None = None) -> typer.Typer:
    """The application with all verbs, or with `verb` alone so that only its module is imported."""
    app = typer.Typer(
        name="adstool",
        help="The machine-learning side of an ads platform: from raw logs to a ranked slate.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_globals)
    for module in [VERBS[verb]] if verb in VERBS else VERBS.values():
        import_module(f"adstool.commands.{module}").register(app)
    return app


def _globals(
    context: typer.Context,
    workspace: Annotated[Path | None, typer.Option(help="The workspace folder.")] = None,
    config: Annotated[Path | None, typer.Option(help="A settings file other than adstool.toml.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No notes; warnings and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="More notes.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"adstool {__version__}")
        raise typer.Exit
    from adstool import progress
    from adstool.commands._output import set_up_notes

    context.obj = Globals(workspace, config, json, quiet, verbose, debug)
    set_up_notes(quiet, verbose, debug)
    progress.show_bars(sys.stderr.isatty() and not quiet)


def hoist_globals(words: list[str]) -> list[str]:
    """Global options written after the verb, moved before it; words after `--` stay where they are."""
    front: list[str] = []
    rest: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            rest += words[index:]
            break
        if word in GLOBAL_SWITCHES or any(word.startswith(f"{name}=") for name in GLOBAL_VALUES):
            front.append(word)
        elif word in GLOBAL_VALUES and index + 1 < len(words):
            front += [word, words[index + 1]]
            index += 1
        else:
            rest.append(word)
        index += 1
    return front + rest


def _verb_of(words: list[str]) -> str | None:
    index = 0
    while index < len(words):
        if words[index] in GLOBAL_VALUES:
            index += 2
        elif words[index].startswith("-"):
            index += 1
        else:
            return words[index]
    return None


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 failed, 2 wrong usage, 3 a gate not passed, 130 interrupted."""
    words = hoist_globals(list(sys.argv[1:] if arguments is None else arguments))
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    debug = "--debug" in words
    try:
        result: Any = build_app(_verb_of(words))(words, standalone_mode=False, prog_name="adstool")
        sys.stdout.flush()
        if result == INTERRUPTED:  # typer turns Ctrl-C into this code by itself, without a word
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except AdstoolError as error:
        if debug:
            raise
        _complain(error.message, error.hint)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _complain("Interrupted.", "The same command goes on from here.")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (| head): point stdout nowhere so that exiting stays quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "show"):
            error.show()
            return int(getattr(error, "exit_code", 2))
        _complain(f"{type(error).__name__}: {error}", "Run it again with --debug for the traceback.")
        return 1


def _complain(message: str, hint: str) -> None:
    sys.stderr.write(f"error: {message}\n")
    if hint:
        sys.stderr.write(f"  try: {hint}\n")
