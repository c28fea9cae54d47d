"""The command line: global options, lazy verbs, and the one place where errors become exit codes."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from adstool import __version__
from adstool.commands._context import Globals
from adstool.commands._help import Verbs, explain_usage
from adstool.commands._output import complain, describe, finish
from adstool.commands._streams import ReaderGone, lead_nowhere, open_standard_streams, write
from adstool.errors import AdstoolError, of_system

# Verb, which is its module, too -> the heading it stands under; in the order in which data flows.
VERBS = {
    "init": "Data",
    "sample": "Data",
    "ingest": "Data",
    "rejects": "Data",
    "sql": "Data",
    "embed": "Content",
    "search": "Content",
    "interests": "Content",
    "enrich": "Content",
    "train": "Models",
    "calibrate": "Models",
    "quantize": "Models",
    "models": "Models",
    "index": "Ranking",
    "quota": "Ranking",
    "rank": "Ranking",
    "serve": "Ranking",
    "evaluate": "Evaluation",
    "simulate": "Evaluation",
    "report": "Evaluation",
    "run": "All of it",
    "demo": "All of it",
    "status": "All of it",
    "doctor": "Machine and settings",
    "config": "Machine and settings",
    "bench": "Machine and settings",
}

# Options a user may also write after the verb; all but these two-word ones are plain switches.
GLOBAL_SWITCHES = {"--json", "--quiet", "--verbose", "--debug"}
GLOBAL_VALUES = {"--workspace", "--config"}
INTERRUPTED = 130  # the exit code of Ctrl-C


def build_app(verb: str | None = None) -> typer.Typer:
    """The application with all verbs, or with `verb` alone so that only its module is imported."""
    app = typer.Typer(
        name="adstool",
        cls=Verbs,
        help="The machine-learning side of an ads platform: from raw logs to a ranked slate.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_globals)
    for module in [verb] if verb in VERBS else VERBS:
        import_module(f"adstool.commands.{module}").register(app)
    return app


def _globals(
    context: typer.Context,
    workspace: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The workspace.",
            show_default="ADSTOOL_WORKSPACE, else the nearest folder upward with an adstool.toml",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The settings file.",
            envvar="ADSTOOL_CONFIG",
            show_default="ADSTOOL_CONFIG, else adstool.toml of the workspace",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout; JSON Lines of rank.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Nothing but results, warnings and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="More notes.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"adstool {__version__}")
        raise typer.Exit
    from adstool import progress
    from adstool.commands._output import set_up_notes

    # Filled in place: main looks at it after a failure, when the context is gone.
    vars(context.obj).update(Globals(workspace, config, json, quiet, verbose, debug).__dict__)
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
    open_standard_streams()
    words = hoist_globals(list(sys.argv[1:] if arguments is None else arguments))
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell starts work in the background
            signal.signal(number, _interrupt)
    sys.exit(_run(words))


_interrupted = False


def _interrupt(number: int, frame: object) -> None:
    """Ctrl-C, or a scheduler that ends its job: both unwind, so that locks and temporary files go."""
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def _run(words: list[str]) -> int:
    """Run, print what came of it, and return the exit code."""
    switches = words[: words.index("--")] if "--" in words else words
    options = Globals(json="--json" in switches, debug="--debug" in switches)
    try:
        code, failure = _attempt(words, options)
        finish(options, failure)
        return code
    except BrokenPipeError:
        lead_nowhere(sys.stdout)  # its reader went away (| head), which is no failure of ours
        return 0
    except OSError as error:
        lead_nowhere(sys.stdout)
        complain(f"Standard output cannot be written: {error.strerror}.", "Make room, or write it elsewhere.")
        return 1


def _attempt(words: list[str], options: Globals) -> tuple[int, dict[str, Any] | None]:
    """The exit code, and for --json what failed; people have read it on stderr by then."""
    try:
        app = build_app(_verb_of(words))
        result: Any = app(words, standalone_mode=False, prog_name="adstool", obj=options)
        if result == INTERRUPTED:  # typer turns Ctrl-C into this code by itself, without a word
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0, None
    except AdstoolError as error:
        return _failed(options, error, error.message, error.hint, error.exit_code)
    except (KeyboardInterrupt, typer.Abort) as error:
        return _failed(options, error, "Interrupted.", "The same command goes on from here.", INTERRUPTED)
    except ReaderGone:
        return 0, None
    except Exception as error:
        if _interrupted:  # a library that was in the middle of something says so in words of its own
            return _failed(options, error, "Interrupted.", "The same command goes on from here.", INTERRUPTED)
        if explained := of_system(error):
            return _failed(options, error, explained.message, explained.hint, explained.exit_code)
        if type(error).__module__.startswith("typer") and hasattr(error, "format_message"):
            message, hint = explain_usage(error)
            if not hint:  # no words at all were given: the message is the page that lists the verbs
                write(sys.stderr, f"{message}\n")
                return 2, describe("UsageError", "No verb was given.", "adstool --help", 2)
            complain(message, hint)
            return 2, describe("UsageError", message, hint, 2)
        hint = "" if options.debug else "Run it again with --debug for the traceback."
        return _failed(options, error, f"{type(error).__name__}: {error}", hint, 1)


def _failed(
    options: Globals, error: BaseException, message: str, hint: str, code: int
) -> tuple[int, dict[str, Any]]:
    if options.debug:
        import traceback

        traceback.print_exception(error)
    complain(message, hint)
    kind = "Interrupted" if code == INTERRUPTED else type(error).__name__
    return code, describe(kind, message, hint, code)
