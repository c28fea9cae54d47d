"""The page that a request is sold: blocks of slots of one format each, auctioned from the top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adstool.config import Format, Settings
from adstool.errors import AdstoolError, UsageError
from adstool.marketplace.auction import exposure_curve, exposure_of_ads


@dataclass(frozen=True)
class Block:
    """Slots of one format."""

    name: str
    exposure: np.ndarray  # float64 [S], the chance that a slot is seen
    rule: str  # of the prices
    lift: float = 1.0  # odds of wanted actions against those of a standard slot that is seen
    hide_lift: float = 1.0  # the same of unwanted ones
    actions: tuple[str, ...] = ()  # heads that apply; empty: all
    ads: tuple[str, ...] = ()  # catalogue formats that may stand in it; empty: all

    def odds(self, actions: Sequence[str], wanted: Sequence[bool]) -> np.ndarray:
        """What the odds of every action are multiplied by, float64 [A]; 0 for one that does not apply."""
        lifts = [self.lift if good else self.hide_lift for good in wanted]
        applies = [not self.actions or name in self.actions for name in actions]
        return np.where(applies, lifts, 0.0)


def lifted(probability: np.ndarray, odds: np.ndarray | float) -> np.ndarray:
    """Probabilities whose odds were multiplied; 1 leaves them as they are, 0 makes them 0."""
    return np.asarray(probability * odds / (1 - probability + probability * odds))


def page_of(settings: Settings, room: int, new: Format | None = None) -> tuple[Block, ...]:
    """The page of `room` standard slots; with a new format, its slots on top, and what they leave below.

    A slot of size 2 takes the room of two standard ones, which it pushes off the page's end; the others keep
    their own places. Raises UsageError when the new format leaves no room.
    """
    standard = exposure_of_ads(settings.formats[0], settings.auction, room)
    if new is None:
        return (Block(settings.formats[0].name, standard, settings.auction.rule),)
    taken = int(np.ceil(new.slots * new.size))
    if taken >= len(standard):
        raise UsageError(
            f"Format '{new.name}' takes the room of {taken} slots of a page of {len(standard)}.",
            "Give it fewer slots or a smaller size, or show more: funnel.slate.",
        )
    unknown = [name for name in new.actions if name not in {action.name for action in settings.actions}]
    if unknown:
        raise AdstoolError(
            f"Format '{new.name}' names the action '{unknown[0]}', which no head predicts.",
            f"Actions: {', '.join(action.name for action in settings.actions)}.",
        )
    top = Block(
        new.name,
        exposure_curve(new, new.slots),
        new.rule or settings.auction.rule,
        new.lift,
        new.hide_lift,
        new.actions,
        new.ads,
    )
    return top, Block(settings.formats[0].name, standard[taken:], settings.auction.rule)
