"""The settings of a synthetic world: its size, its rates and the seed that decides everything in it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from adstool.errors import AdstoolError, UsageError, choose

GENERATOR = "adstool sample"
GENERATOR_VERSION = 2  # raised when the same settings would no longer give the same world
JSONL_LIMIT = 300_000  # expected events above which the log is written as parquet


@dataclass(frozen=True)
class Rates:
    """Target mean probabilities; the simulation's intercepts are solved so that they come out."""

    click: float = 0.12  # of impressions
    long_click: float = 0.45  # of clicks
    save: float = 0.05  # of impressions
    closeup: float = 0.08  # of impressions
    hide: float = 0.03  # of impressions
    conversion: float = 0.15  # of ad clicks
    view_through: float = 0.004  # of ad impressions without a click
    organic: float = 0.4  # conversions without any ad, as a share of those after clicks


# What display and promoted-pin formats see in the trade: click 2-5 %, conversion 1-4 % of clicks.
TRADE_RATES = Rates(
    click=0.035, long_click=0.40, save=0.008, closeup=0.025, hide=0.004, conversion=0.025, view_through=0.0003
)


@dataclass(frozen=True)
class WorldConfig:
    """Everything that decides a world; two equal configs give the same bytes.

    On another kind of CPU the last bit of the odds in truth/ may differ, and no event.
    """

    users: int = 1500
    ads: int = 600
    pins: int = 600
    days: int = 14
    seed: int = 7
    start: str = "2026-11-02"  # the first day, UTC
    requests_per_user_day: float = 0.5  # mean over users; activity is heavy-tailed
    slate: int = 10  # items shown a request
    ad_share: float = 0.55  # chance that a slot holds an ad; the rest hold pins
    picture_size: int = 64  # pixels
    log_format: str = "auto"  # jsonl | parquet | auto: jsonl up to 300,000 expected events
    rates: Rates = field(default_factory=Rates)

    def __post_init__(self) -> None:
        """Refuse sizes in which no world fits; raises UsageError."""
        for name, least in (("users", 10), ("ads", 20), ("pins", 20), ("days", 1)):
            if getattr(self, name) < least:
                raise UsageError(
                    f"--{name} {getattr(self, name)} is too small for a world.", f"Give at least {least}."
                )
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed} is negative.", "Give a whole number from 0 up.")
        if self.log_format not in ("auto", "jsonl", "parquet"):
            raise UsageError(f"Unknown log format '{self.log_format}'.", "Use auto, jsonl or parquet.")

    @property
    def started_at(self) -> datetime:
        """The first second of the world."""
        return datetime.fromisoformat(self.start).replace(tzinfo=UTC)

    @property
    def holiday(self) -> int:
        """The day (0-based) on which traffic spikes: two thirds into the world."""
        return self.days * 2 // 3

    @property
    def expected_events(self) -> int:
        """A rough count of events, before anything is simulated."""
        impressions = self.users * self.days * self.requests_per_user_day * self.slate
        rates = self.rates
        actions = rates.click * (1 + rates.long_click) + rates.save + rates.closeup + rates.hide
        return int(impressions * (1.03 + actions))

    @property
    def writes_parquet(self) -> bool:
        """Whether the event log is parquet rather than jsonl.gz."""
        return self.log_format == "parquet" or (
            self.log_format == "auto" and self.expected_events > JSONL_LIMIT
        )

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values."""
        return dataclasses.asdict(self)


PRESETS: dict[str, WorldConfig] = {
    "small": WorldConfig(),
    "full": WorldConfig(
        users=20_000, ads=4_000, pins=4_000, days=14, requests_per_user_day=0.34, rates=TRADE_RATES
    ),
}


def preset(name: str, **changes: int | None) -> WorldConfig:
    """The preset `name` with the given (not None) fields changed; raises UsageError for an unknown name."""
    if name not in PRESETS:
        raise UsageError(f"--preset {name} is not known.", choose(name, PRESETS))
    given: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
    try:
        return dataclasses.replace(PRESETS[name], **given)
    except TypeError as error:
        raise AdstoolError(
            f"Unknown setting of a world: {error}", "Use users, ads, pins, days or seed."
        ) from None
