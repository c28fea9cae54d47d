"""Arms of a simulation: what their names mean, and the settings, models and bidders behind them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adstool.config import Format, Settings, load_settings
from adstool.documents import read_toml
from adstool.errors import AdstoolError, UsageError
from adstool.marketplace.auction import RULES
from adstool.marketplace.strategies import STRATEGIES
from adstool.workspace import Workspace

CURRENT = "current"
MODELS = ("engagement", "conversion")
SCALE = "value*"  # before a factor: predictions of conversions and money are off by it


@dataclass(frozen=True)
class Arm:
    """One side of a comparison."""

    name: str
    settings: Settings
    strategy: str = "fixed"
    runs: tuple[tuple[str, str], ...] = ()  # model and run where it is not the one in use
    value_scale: float = 1.0
    new: Format | None = None  # a format that the page has besides

    @property
    def models(self) -> tuple[str, str]:
        """What the funnel's predictions depend on: the runs of engagement and conversion, empty for those in
        use."""
        runs = dict(self.runs)
        return runs.get("engagement", ""), runs.get("conversion", "")


def read_arm(ws: Workspace, settings: Settings, name: str) -> Arm:
    """The arm of a name: parts joined by '+', each a rule of the auction, a strategy of bidding, MODEL@RUN,
    value*FACTOR or a toml file of settings; `current` adds nothing. Raises UsageError for anything else.
    """
    arm = Arm(name, settings)
    for part in name.split("+"):
        arm = _with(ws, arm, part.strip())
    return arm


def _with(ws: Workspace, arm: Arm, part: str) -> Arm:
    if part == CURRENT:
        return arm
    if part in RULES:
        auction = dataclasses.replace(arm.settings.auction, rule=part)
        return dataclasses.replace(arm, settings=dataclasses.replace(arm.settings, auction=auction))
    if part in STRATEGIES:
        return dataclasses.replace(arm, strategy=part)
    if part.startswith(SCALE):
        return dataclasses.replace(arm, value_scale=_factor(part))
    if part.endswith(".toml"):
        return dataclasses.replace(arm, settings=_overlaid(ws, Path(part)))
    model, at, run = part.partition("@")
    if at and model in MODELS:
        if not (ws.models / model / run / "config.json").is_file():
            known = ", ".join(one.name for one in ws.runs(model)) or "none"
            raise UsageError(f"There is no run '{run}' of {model} in {ws.root}.", f"Runs: {known}.")
        return dataclasses.replace(arm, runs=(*arm.runs, (model, run)))
    raise UsageError(
        f"'{part}' is no arm.",
        f"Use {CURRENT}, a rule ({', '.join(RULES)}), a strategy ({', '.join(STRATEGIES)}), engagement@RUN, "
        f"conversion@RUN, {SCALE}0.8 or a toml file of settings; join parts with +.",
    )


def _factor(part: str) -> float:
    try:
        factor = float(part.removeprefix(SCALE))
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise UsageError(f"'{part}' has no factor above 0.", f"For example {SCALE}0.8.")
    return factor


def _overlaid(ws: Workspace, path: Path) -> Settings:
    """The workspace's settings with those of a file on top."""
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", "Name a toml file of settings such as [auction].")
    document = read_toml(path)
    flags: dict[str, Any] = {}
    for section, content in document.items():
        if not isinstance(content, dict):
            raise AdstoolError(f"{path}: '{section}' is no section.", "An arm changes sections alone.")
        for key in content:
            if section != "auction" and (section, key) != ("funnel", "slate"):
                raise UsageError(
                    f"{path}: {section}.{key} does not change what is simulated.",
                    "An arm may change [auction] and funnel.slate; its models by engagement@RUN.",
                )
        flags |= {f"{section}.{key}": value for key, value in content.items()}
    return load_settings(ws.config, flags)


def read_format(path: Path, settings: Settings) -> Format:
    """The one [[formats]] entry of a file, or one of the settings beside the first, which is the page's own.

    Raises AdstoolError when the file holds another number of them.
    """
    named = {form.name: form for form in settings.formats[1:]}
    if not path.is_file() and str(path) in named:
        return _sound(named[str(path)], str(path))
    if not path.is_file():
        raise UsageError(
            f"There is no file {path}, and no format of that name in adstool.toml.",
            f"Name a toml file with a [[formats]] entry, or one of: {', '.join(named) or 'none yet'}.",
        )
    formats = load_settings(path, environment={}).formats
    if len(formats) != 1 or formats == (Format(),):
        raise AdstoolError(f"{path} holds no single format.", "Give it one [[formats]] entry with a name.")
    return _sound(formats[0], str(path))


def _sound(form: Format, where: str) -> Format:
    """The format; raises AdstoolError for numbers that no page can have."""
    if form.slots < 1 or min(form.size, form.lift, form.hide_lift) <= 0 or form.rule not in ("", *RULES):
        raise AdstoolError(
            f"{where}: '{form.name}' has slots = {form.slots}, size = {form.size}, lift = {form.lift}, "
            f"hide_lift = {form.hide_lift}, rule = '{form.rule}'.",
            f"Slots of 1 or more, the others above 0, and a rule of {', '.join(RULES)} or none.",
        )
    return form


def read_arms(ws: Workspace, settings: Settings, names: str, form: Path | None) -> list[Arm]:
    """The arms asked for, the first being what others are compared with; with a format, one more that has it.

    Raises UsageError for fewer than one, a name twice, or none that is known.
    """
    listed = [part.strip() for part in names.split(",") if part.strip()]
    arms = [read_arm(ws, settings, name) for name in dict.fromkeys(listed)]
    if not arms or len(arms) != len(listed):
        raise UsageError(f"--arms {names!r} names no arm, or one twice.", "For example --arms current,dual.")
    if form is not None:
        new = read_format(form, settings)
        arms.append(dataclasses.replace(arms[0], name=f"{arms[0].name}+{new.name}", new=new))
    return arms
