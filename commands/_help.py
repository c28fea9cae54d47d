"""Help as plain text of the terminal's width: a page a verb, and the page that lists the verbs in groups."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from adstool.commands._options import Group

WIDEST = 100  # columns beyond which lines are hard to read
NARROW = 64  # columns below which a text stands under its option, not beside it
NAMES = 26  # columns of the names of options at most
TYPES = {"str": "TEXT", "int": "N", "float": "X"}  # of a value whose metavar was not given
EVERYWHERE = (
    "Every verb also takes --workspace DIR, --config FILE, --json, --quiet, --verbose and --debug: "
    "adstool --help."
)


class Verb(TyperCommand):
    """A verb with its examples (in `epilog`, one a line) and what its exit code 3 means (the last line)."""

    @property
    def sentence(self) -> str:
        """What the verb does, in one sentence."""
        return " ".join((self.help or "").partition("\n\n")[0].split())

    @property
    def examples(self) -> list[str]:
        """Commands that can be run."""
        return [line for line in (self.epilog or "").split("\n") if not line.startswith("3 ")]

    @property
    def exit_codes(self) -> str:
        """What its exit codes mean."""
        refused = [f"{line}, " for line in (self.epilog or "").split("\n") if line.startswith("3 ")]
        return f"Exit codes: 0 done, 1 failed, 2 wrong usage, {''.join(refused)}130 interrupted."

    def get_help(self, ctx: Any) -> str:
        """The page of the verb."""
        return page(self, _columns())


class Verbs(TyperGroup):
    """All verbs, listed by group in the order in which data flows."""

    def get_help(self, ctx: Any) -> str:
        """The page that lists the verbs."""
        return front_page(self, _columns())


def add_verb(app: typer.Typer, verb: Callable[..., None], *examples: str, refused: str = "") -> None:
    """Add `verb` under its own name, with its docstring as help.

    examples: commands that can be run. refused: what its exit code 3 means, if it has one.
    """
    epilog = "\n".join([*examples, *([f"3 {refused}"] if refused else [])])
    app.command(verb.__name__, cls=Verb, epilog=epilog)(verb)


def page(verb: Verb, columns: int) -> str:
    """The help of one verb."""
    usage = " ".join([f"Usage: adstool {verb.name}", *words_of(verb), "[OPTIONS]"])
    blocks = [_wrapped(usage, columns, "", " " * 7), _wrapped(verb.sentence, columns), body(verb, columns)]
    blocks += [_wrapped(EVERYWHERE, columns, "", ""), _wrapped(verb.exit_codes, columns, "", "")]
    return "\n\n".join(blocks)


def body(verb: Verb, columns: int) -> str:
    """What a page tells beside how the verb is written and what it does: more of it, examples, options."""
    more = (verb.help or "").split("\n\n")[1:]
    blocks = [_wrapped(" ".join(text.split()), columns) for text in more]
    blocks.append("\n".join(["Examples:", *(f"  {example}" for example in verb.examples)]))
    blocks += [f"{name}:\n{_listed(rows, columns)}" for name, rows in groups_of(verb)]
    return "\n\n".join(blocks)


def front_page(app: TyperGroup, columns: int) -> str:
    """The help of adstool itself."""
    from adstool.commands import VERBS

    blocks = ["Usage: adstool [OPTIONS] VERB ...", _wrapped(app.help or "", columns)]
    for group in dict.fromkeys(VERBS.values()):
        verbs = [command for name, command in app.commands.items() if VERBS[name] == group]
        rows = [(str(verb.name), verb.sentence) for verb in verbs if isinstance(verb, Verb)]
        if rows:
            blocks.append(f"{group}:\n{_listed(rows, columns, 10)}")
    rows = [_row(one) for one in app.params]
    blocks.append(f"Options of every verb:\n{_listed(rows, columns)}")
    blocks.append(_wrapped("adstool VERB --help has examples and the options of a verb.", columns, "", ""))
    return "\n\n".join(blocks)


def words_of(verb: Verb) -> list[str]:
    """The words that follow the verb, those in brackets that can be left out."""
    return [_name(one) if one.required else f"[{_name(one)}]" for one in verb.params if _is_word(one)]


def groups_of(verb: Verb) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Name and rows (option, text) of every group of the verb that has any."""
    words = [_row(one) for one in verb.params if _is_word(one)]
    if words:
        yield "Arguments", words
    for group in Group:
        rows = [_row(one) for one in verb.params if getattr(one, "rich_help_panel", None) == group]
        if rows:
            yield group, rows


def _is_word(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _name(parameter: Any) -> str:
    """An option with its metavar, as it is written."""
    if _is_word(parameter):
        return str(parameter.metavar)
    names = [*parameter.opts, *parameter.secondary_opts]
    names.sort(key=lambda name: name.startswith("--"))
    shown = "/".join(names) if parameter.secondary_opts else ", ".join(names)
    if parameter.is_flag:
        return shown
    return f"{shown} {parameter.metavar}"


def _row(parameter: Any) -> tuple[str, str]:
    """The name of an option, and its text with range, repetition and default."""
    facts = []
    if parameter.min is not None and parameter.max is not None:
        facts.append(f"{parameter.min:g} to {parameter.max:g}")
    elif parameter.min is not None:
        facts.append(f"{parameter.min:g} or more")
    if getattr(parameter, "multiple", False):
        facts.append("may be repeated")
    default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    if default is not None and default is not False and default != "":
        facts.append(f"default: {default}")
    return _name(parameter), " ".join([parameter.help or "", *([f"[{'; '.join(facts)}]"] if facts else [])])


def _listed(rows: list[tuple[str, str]], columns: int, names: int = 0) -> str:
    """Names and texts in two columns; in a narrow terminal a text under its name."""
    if columns < NARROW:
        return "\n".join(f"  {name}\n{_wrapped(text, columns, ' ' * 6, ' ' * 6)}" for name, text in rows)
    width = names or min(NAMES, max(len(name) for name, _ in rows))
    lines = []
    for name, text in rows:
        indent = " " * (width + 4)
        wrapped = _wrapped(text, columns, indent, indent)
        if len(name) <= width:
            lines.append(f"  {name:<{width}}  {wrapped.lstrip()}")
        else:
            lines += [f"  {name}", wrapped]
    return "\n".join(lines)


def _wrapped(text: str, columns: int, first: str = "  ", rest: str = "  ") -> str:
    return textwrap.fill(
        text,
        columns,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _columns() -> int:
    return max(30, min(WIDEST, shutil.get_terminal_size().columns))


def explain_usage(error: Any) -> tuple[str, str]:
    """What typer found wrong with the words given and what to try, the nearest verb or option being named.

    Without any words the message is the page that lists the verbs, and there is nothing to try.
    """
    message = str(error.format_message())
    if type(error).__name__ == "NoArgsIsHelpError":
        return message, ""
    from difflib import get_close_matches

    from adstool.commands import GLOBAL_SWITCHES, GLOBAL_VALUES, VERBS

    context = error.ctx
    path = context.command_path if context else "adstool"
    near: list[str] = []
    if context and type(error).__name__ == "NoSuchOption":
        options = [*context.command.get_params(context)]
        known = [name for one in options for name in (*one.opts, *one.secondary_opts)]
        near = get_close_matches(error.option_name, [*known, *GLOBAL_SWITCHES, *GLOBAL_VALUES], n=1)
        message = f"{path} has no option {error.option_name}."
    elif message.startswith("No such command"):
        word = message.split("'")[1]
        near = get_close_matches(word, VERBS, n=1)
        message = f"There is no verb '{word}'."
    elif not message.endswith((".", "?", "!")):
        message += "."
    lists = f"{path} --help lists what can be written."
    return message, f"Did you mean {near[0]}? {lists}" if near else lists
