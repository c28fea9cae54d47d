"""Epochs of CLIP training; everything random follows from the seed and the epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adstool.content import clip_checkpoint
from adstool.content.clip_data import ClipData, batches_of, closed_texts, draw_text, singular, true_of
from adstool.content.clip_losses import category_loss, contrastive_loss, joint, neighbour_loss, view_loss
from adstool.content.clip_metrics import category_names, clip_metrics
from adstool.content.clip_options import ClipTrainOptions
from adstool.content.clip_towers import Towers
from adstool.content.coengagement import Neighbours
from adstool.progress import bar, log

HELD_OUT_LIMIT = 2000  # pairs a figure is measured on
WARM_UP = 0.05  # of all steps
MAX_SCALE = math.log(100)  # CLIP's bound on the learned temperature
CATEGORY_LIMIT = 256  # with more of them, only a batch's own are told apart
TITLE_SHARE = 0.5  # weight of naming a title's category beside naming a picture's


def held_out_metrics(towers: Towers, data: ClipData, split: str) -> dict[str, float]:
    """clip_metrics of a model on the first HELD_OUT_LIMIT pairs of a split ('valid' or 'test')."""
    rows = data.splits[split][:HELD_OUT_LIMIT]
    pairs = [data.pairs[row] for row in rows]
    if not pairs:
        return {"n": 0}
    towers.clip.model.eval()
    prompts = towers.plain_texts(category_names(pairs))
    text = towers.plain_texts([pair.text for pair in pairs])
    return clip_metrics(towers.plain_images(rows), text, prompts, pairs)


@dataclass(frozen=True)
class Batch:
    """One step's rows and what is said of them."""

    rows: np.ndarray
    texts: list[str]
    again: np.ndarray  # rows of which a second view is taken, the first of `rows`
    anchors: np.ndarray  # places in `rows` that have a partner
    partners: np.ndarray  # rows that users engaged with as well, one an anchor


class ClipLoop:
    """Training of `towers` over one catalogue, with a checkpoint an epoch."""

    def __init__(
        self, towers: Towers, data: ClipData, neighbours: Neighbours, options: ClipTrainOptions, run_dir: Path
    ) -> None:
        self.towers, self.data, self.neighbours = towers, data, neighbours
        self.options, self.run_dir = options, run_dir
        self.model = towers.clip.model
        train = data.splits["train"]
        self.batch = min(options.batch_size, len(train))
        self.steps = len(train) // self.batch
        self.names = category_names([data.pairs[row] for row in train])
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        groups = [
            {"params": [w for w in weights if w.ndim >= 2], "weight_decay": options.weight_decay},
            {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98), eps=1e-6)
        self.curve: list[dict[str, float]] = []
        self.rows, self.seconds = 0, 0.0

    def run(self, plan: str) -> None:
        """Train the epochs that are left, keeping a checkpoint after each; `plan` says of what."""
        self.curve = clip_checkpoint.load(self.run_dir, self.model, self.optimizer, plan)
        if self.curve:
            log.info("going on after epoch %d of %d", len(self.curve), self.options.epochs)
        log.info("training on %d pictures", len(self.data.splits["train"]))
        with bar("train clip", total=self.options.epochs * self.steps, unit="step") as shown:
            shown.update(len(self.curve) * self.steps)
            for epoch in range(len(self.curve), self.options.epochs):
                began = time.monotonic()
                losses = self._epoch(epoch, shown)
                self.seconds += time.monotonic() - began
                valid = held_out_metrics(self.towers, self.data, "valid")
                self.curve.append({"epoch": epoch + 1} | losses | _prefixed(valid))
                log.debug("epoch %d: %s", epoch + 1, self.curve[-1])
                clip_checkpoint.save(self.run_dir, self.model, self.optimizer, plan, self.curve)

    def _epoch(self, epoch: int, shown: Any) -> dict[str, float]:
        self.model.train()
        rng = np.random.default_rng((self.options.seed, epoch))
        sums: dict[str, float] = {}
        for step, batch in enumerate(self._batches(epoch, rng)):
            self._set_rate(epoch * self.steps + step)
            losses = self.losses(batch, rng)
            self.optimizer.zero_grad(set_to_none=True)
            total = sum(self._weight(name) * loss for name, loss in losses.items())
            assert isinstance(total, torch.Tensor)
            total.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            with torch.no_grad():
                self.model.logit_scale.clamp_(0.0, MAX_SCALE)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.item()
            self.rows += len(batch.rows)
            shown.update(1)
        return {name: value / self.steps for name, value in sums.items()}

    def _weight(self, name: str) -> float:
        weights = {
            "view_loss": self.options.views,
            "neighbour_loss": self.options.neighbours,
            "category_loss": self.options.categories,
            "title_category_loss": self.options.categories * TITLE_SHARE,
        }
        return weights.get(name, 1.0)

    def _batches(self, epoch: int, rng: np.random.Generator) -> Iterator[Batch]:
        frozen = self.towers.frozen  # then a second view would be the first
        late = self.options.views > 0 and epoch >= self.options.epochs / 2 and not frozen
        train = self.data.splits["train"]
        categories = [self.data.pairs[row].category for row in train]
        for rows in batches_of(train, categories if late else None, self.batch, rng):
            pairs = [self.data.pairs[row] for row in rows]
            if frozen:
                texts = [str(rng.choice(closed_texts(pair))) for pair in pairs]
            else:
                texts = [draw_text(pair, rng) for pair in pairs]
            again = rows[: self.batch // 2] if late else rows[:0]
            anchors, partners = self._partnered(rows, rng)
            yield Batch(rows, texts, again, anchors, partners)

    def _partnered(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Places in `rows` with a neighbour drawn for each; of half of them where pictures cost time."""
        if self.options.neighbours <= 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        drawn = self.neighbours.draw(rows, rng)
        places = np.flatnonzero(drawn >= 0)
        if not self.towers.frozen:
            places = places[places >= self.batch // 2]
        return places, drawn[places]

    def losses(self, batch: Batch, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """The losses of a batch by name; those of weight zero are left out."""
        pairs = [self.data.pairs[row] for row in batch.rows]
        n, views, met = len(batch.rows), len(batch.again), len(batch.partners)
        image = self.towers.images(np.concatenate([batch.rows, batch.again, batch.partners]), rng)
        met_rows = np.concatenate([batch.rows[batch.anchors], batch.partners])
        names, own = self._categories(batch.rows, rng) if self.options.categories > 0 else ([], None)
        whole = [self.data.pairs[row].text for row in met_rows]
        text = self.towers.texts([*batch.texts, *whole, *names])
        scale = self.model.logit_scale.exp()
        true = torch.from_numpy(true_of(batch.texts, pairs)).to(image.device)
        losses = {"train_loss": contrastive_loss(image[:n], text[:n], scale, true)}
        if views:
            losses["view_loss"] = view_loss(image[:views], image[n : n + views])
        if met > 1:
            places = torch.from_numpy(batch.anchors).to(image.device)
            first = joint(image[places], text[n : n + met])
            second = joint(image[n + views :], text[n + met : n + 2 * met])
            together = self.neighbours.together(batch.rows[batch.anchors], batch.partners)
            losses["neighbour_loss"] = neighbour_loss(
                first, second, torch.from_numpy(together).to(image.device)
            )
        if own is not None and len(names) > 1:
            named = text[n + 2 * met :]
            titles = [text in (pair.text, pair.title) for text, pair in zip(batch.texts, pairs, strict=True)]
            told = np.where(titles, own, -1)  # a few words need not tell the category
            losses["category_loss"] = category_loss(image[:n], named, scale, _on(own, image))
            losses["title_category_loss"] = category_loss(text[:n], named, scale, _on(told, image))
        return losses

    def _categories(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
        """Category names to tell apart, some in the singular, and which of them each row has (-1: none)."""
        own = [self.data.pairs[row].category for row in rows]
        names = self.names if len(self.names) <= CATEGORY_LIMIT else sorted({name for name in own if name})
        place = {name: number for number, name in enumerate(names)}
        turned = rng.random(len(names)) < 0.5
        written = [singular(name) if turn else name for name, turn in zip(names, turned, strict=True)]
        return written, np.array([place.get(name, -1) for name in own], np.int64)

    def _set_rate(self, step: int) -> None:
        """Linear warm-up, then half a cosine to zero."""
        total = self.options.epochs * self.steps
        warm = max(1, int(WARM_UP * total))
        rise = (step + 1) / warm
        fall = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * (rise if step < warm else fall)


def _on(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(like.device)


def _prefixed(valid: Mapping[str, float]) -> dict[str, float]:
    return {f"valid_{name}": value for name, value in valid.items() if not name.startswith("chance")}
