"""What can be set for `train clip`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from adstool.errors import UsageError, choose

PICTURES_SHOWN = 60_000  # in a training of default length
PROJECTION_SHOWN = 200_000  # with frozen towers a picture costs next to nothing
SCRATCH_RATE, TUNING_RATE = 1e-3, 1e-4  # learning rates of towers
PROJECTION_RATE = 1e-3
KINDS: dict[Any, str] = {int: "whole number", float: "number", str: "text"}


@dataclass(frozen=True)
class ClipTrainOptions:
    """What can be set for `train clip`; --set key=value changes one."""

    preset: str = "conv"  # conv | vit, the picture tower when training from scratch
    epochs: int = 0  # 0: as many as show about PICTURES_SHOWN pictures (PROJECTION_SHOWN to a projection)
    batch_size: int = 0  # 0: 64, of which small catalogues gain more than of larger ones; 512 a projection
    learning_rate: float = 0.0  # 0: by what is trained
    weight_decay: float = 0.1
    views: float = 1.0  # weight of telling pictures apart by what no text says, in the second half
    categories: float = 1.0  # weight of naming the category of pictures and titles, where they have one
    neighbours: float = 0.0  # weight of finding what the same users engaged with
    window_hours: float = 24.0  # engagements of a user closer in time than this make pictures neighbours
    half_life_days: float = 30.0  # after which such a meeting counts half
    augment: float = 0.2  # how far pictures are zoomed and moved; 0: not at all
    dim: int = 128  # length of the vectors, from scratch
    seed: int = 0
    init: str = ""  # start from this CLIP: adstool-small, clip@r1, local-dir:PATH or open_clip's name
    pretrained: str = ""  # the weights of an open_clip name, a tag or a file
    tune: str = "towers"  # towers | projection, what of a CLIP that is started from is trained

    @classmethod
    def from_given(cls, overrides: Mapping[str, Any], flags: Mapping[str, Any]) -> ClipTrainOptions:
        """Options from `--set` values, which may be text, and flags, which win. Raises UsageError."""
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for key, value in {**overrides, **flags}.items():
            if key not in hints:
                raise UsageError(f"--set: train clip has no '{key}' to set.", choose(key, hints))
            try:
                values[key] = hints[key](value)
            except (TypeError, ValueError):
                raise UsageError(
                    f"--set {key}={value} is not a {KINDS[hints[key]]}.",
                    f"Give a {KINDS[hints[key]]}, such as --set {key}={getattr(cls, key)}",
                ) from None
        options = cls(**values)
        options.check()
        return options

    def check(self) -> None:
        """Raise UsageError for values that cannot be trained with."""
        if self.epochs < 0 or self.batch_size < 0 or self.batch_size == 1 or self.dim < 1:
            raise UsageError(
                f"--epochs {self.epochs}, --batch-size {self.batch_size} or --set dim={self.dim} is too few.",
                "Give a dim of 1 or more and a batch of 2 or more, or leave them out.",
            )
        for name in ("learning_rate", "views", "categories", "neighbours", "augment"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(
                    f"--set {name}={getattr(self, name)} is below 0 or no number.",
                    f"Leave out {name}, or give 0 or more.",
                )
        for name in ("window_hours", "half_life_days"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(
                    f"--set {name}={getattr(self, name)} is not above 0.",
                    f"Leave out {name}, or give more than 0.",
                )
        if self.tune not in ("towers", "projection"):
            raise UsageError(f"--set tune={self.tune} is not known.", "Use towers or projection.")
        if not self.init and (self.tune == "projection" or self.pretrained):
            raise UsageError(
                "--set tune=projection and --set pretrained=FILE need a CLIP to start from.",
                "Name it: --set init=clip@current, or --set init=ViT-B-32 --set pretrained=FILE",
            )

    def for_catalogue(self, pictures: int) -> ClipTrainOptions:
        """These options with all that is left open settled for a catalogue of that many pictures."""
        projection = self.tune == "projection"
        shown = PROJECTION_SHOWN if projection else PICTURES_SHOWN
        rate = PROJECTION_RATE if projection else TUNING_RATE if self.init else SCRATCH_RATE
        return dataclasses.replace(
            self,
            epochs=self.epochs or max(4, round(shown / pictures)),
            batch_size=self.batch_size or (512 if projection else 64),
            learning_rate=self.learning_rate or rate,
        )

    def identity(self) -> str:
        """A hash of all options, by which a checkpoint is known to be of the same training."""
        return hashlib.blake2b(json.dumps(dataclasses.asdict(self)).encode(), digest_size=8).hexdigest()
