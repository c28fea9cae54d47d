"""How many candidates each source may bring: equal shares, set by hand, or learned by `adstool quota`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from adstool.errors import AdstoolError, choose
from adstool.features.state import RequestContext
from adstool.progress import log
from adstool.workspace import Workspace, read_json

MODEL = "quota"  # its runs lie in models/quota
FILE = "quota.json"
OVERALL = "overall"  # the segment of requests that have none of their own


@dataclass(frozen=True)
class Quota:
    """The depth of every source, of at most `total` distinct candidates together.

    fill: what is left of `total` comes from the two towers; without it fewer are enough, as a budget of time
    wants it.
    """

    depths: Mapping[str, int]
    total: int
    fill: bool = True

    @classmethod
    def equal(cls, names: Collection[str], total: int) -> Quota:
        """The same depth for every source."""
        return cls(dict.fromkeys(names, max(total // max(len(names), 1), 1)), total)

    def within(self, total: int) -> Quota:
        """The same shares of another total; without filling up, of a smaller one alone."""
        if total == self.total or (not self.fill and total > self.total):
            return self
        share = total / max(self.total, 1)
        depths = {name: round(depth * share) for name, depth in self.depths.items()}
        return Quota(depths, total, self.fill)


class Plan(Protocol):
    """What says which quota a request gets."""

    def of(self, ctx: RequestContext) -> Quota | None:
        """The request's quota; None for equal shares."""
        ...


@dataclass(frozen=True)
class OneQuota:
    """The same quota for every request."""

    quota: Quota | None = None

    def of(self, ctx: RequestContext) -> Quota | None:
        """See Plan."""
        return self.quota


@dataclass(frozen=True)
class LearnedQuota:
    """What `adstool quota` learned: a quota by segment, and one for requests of no segment that it knows."""

    segments: Mapping[str, Quota]

    def of(self, ctx: RequestContext) -> Quota | None:
        """See Plan."""
        return self.segments.get(segment_of(ctx)) or self.segments.get(OVERALL)

    @property
    def sources(self) -> set[str]:
        """The sources it was learned for."""
        return {name for quota in self.segments.values() for name in quota.depths}

    @classmethod
    def load(cls, run_dir: Path) -> LearnedQuota:
        """A run of `quota`; raises AdstoolError when it is damaged."""
        document = read_json(run_dir / FILE)
        try:
            total, fill = int(document["total"]), bool(document["fill"])
            depths = {OVERALL: document["quotas"]}
            depths |= {name: one["quotas"] for name, one in document["segments"].items()}
            return cls({name: Quota(_whole(one), total, fill) for name, one in depths.items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AdstoolError(f"{run_dir} holds no whole quota: {error}", "Run adstool quota.") from None


def _whole(depths: Mapping[str, Any]) -> dict[str, int]:
    return {str(name): int(depth) for name, depth in depths.items()}


def segment_of(ctx: RequestContext) -> str:
    """The segment of a request: its surface, whether it has a query, whether its user has a past."""
    asked = "query" if ctx.query else "no query"
    past = "engaged before" if ctx.end > ctx.start else "new"
    return f"{ctx.surface or 'no surface'}, {asked}, {past}"


def hand_set(quotas: Collection[str], names: Collection[str], total: int) -> Quota:
    """The quota of texts such as two_tower=800; sources that are not named bring nothing.

    Raises AdstoolError for a text that is none, naming the nearest source for an unknown one.
    """
    depths = dict.fromkeys(names, 0)
    for text in quotas:
        name, _, depth = text.partition("=")
        name = name.strip()
        if name not in depths:
            raise AdstoolError(f"funnel.quotas: the index has no source '{name}'.", choose(name, depths))
        if not depth.strip().isdecimal():
            raise AdstoolError(
                f"funnel.quotas: {text!r} is no source and number.", 'Write quotas = ["two_tower=800"].'
            )
        depths[name] = int(depth)
    return Quota(depths, total)


def load_quota(ws: Workspace) -> LearnedQuota | None:
    """The run of `quota` in use, None where there is none."""
    run = ws.current_run(MODEL)
    return LearnedQuota.load(run) if run is not None else None


def plan_of(
    learned: LearnedQuota | None, by_hand: Collection[str], names: Collection[str], total: int
) -> Plan:
    """What serves: quotas set by hand, else those learned for these very sources, else equal shares.

    Raises AdstoolError where what is set by hand cannot be read.
    """
    if by_hand:
        return OneQuota(hand_set(by_hand, names, total))
    if learned is not None and learned.sources != set(names):
        log.warning(
            "The quotas in use were learned for other sources than those of the index, so every source has an"
            " equal share. Learn them again: adstool quota"
        )
        return OneQuota()
    return learned or OneQuota()
