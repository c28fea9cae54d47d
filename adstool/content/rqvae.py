"""RQ-VAE: an encoder, residual codebooks and a decoder trained together (Zeghidour et al. 2021; Rajput et al.
2023, TIGER). What it learns leaves as arrays: ids are made without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from adstool.content.codebooks import Codebooks, Layers
from adstool.content.kmeans import residual_kmeans
from adstool.progress import track


@dataclass(frozen=True)
class RqVaeConfig:
    """How an RQ-VAE is built and trained."""

    latent: int = 64
    hidden: int = 256
    beta: float = 0.25  # weight of the commitment of the encoder to its codes
    decay: float = 0.99  # of the moving averages that the codebooks are
    dead_below: float = 0.05  # a code used by less than this share of an even use is given another place
    learning_rate: float = 1e-3
    batch_size: int = 512
    steps: int = 3000  # all together, at least one epoch
    warm_up: float = 0.15  # share of the steps in which nothing is quantized, so that k-means has latents


class RqVae(nn.Module):
    """Encoder D -> hidden -> latent, L codebooks of vectors, decoder back.

    loss = |x - decode(q)|^2 + beta * sum_l |r_l - sg(e_l)|^2, where r_l is what is left before level l, e_l
    the nearest vector of its codebook and q = sum_l e_l, through which gradients go straight. The codebooks
    get no gradient: each vector is the moving average of what it was chosen for.
    """

    def __init__(self, dim: int, config: RqVaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _mlp(dim, config.hidden, config.latent)
        self.decoder = _mlp(config.latent, config.hidden, dim)
        self.codebooks: list[Tensor] = []  # [K, latent] each; empty while warming up
        self.counts: list[Tensor] = []  # [K], moving averages of how often a batch chose each
        self.sums: list[Tensor] = []  # [K, latent], and of the sum of what it was chosen for

    def start(self, codebooks: list[Tensor], rows: int) -> None:
        """Begin to quantize with these codebooks, as if each vector stood for an even share of `rows`."""
        self.codebooks = [level.clone() for level in codebooks]
        self.counts = [torch.full((len(level),), rows / len(level)) for level in codebooks]
        self.sums = [
            level * counts[:, None] for level, counts in zip(self.codebooks, self.counts, strict=True)
        ]

    def quantize(self, latent: Tensor) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """q [B, d], the commitment (a mean over the batch), and by level the codes [B] and what was left
        before it [B, d]."""
        left, total = latent, torch.zeros_like(latent)
        commitment = latent.new_zeros(())
        codes, before = [], []
        for level in self.codebooks:
            chosen = torch.cdist(left.detach(), level).argmin(dim=1)
            codes.append(chosen)
            before.append(left.detach())
            vectors = level[chosen]
            commitment = commitment + (left - vectors).square().sum(dim=1).mean()
            total, left = total + vectors, left - vectors
        return total, commitment, codes, before

    def loss(self, batch: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The loss of a batch [B, D], its codes and what was left before each level."""
        latent = self.encoder(batch)
        if not self.codebooks:
            return (self.decoder(latent) - batch).square().sum(dim=1).mean(), [], []
        total, commitment, codes, before = self.quantize(latent)
        straight = latent + (total - latent).detach()
        error = (self.decoder(straight) - batch).square().sum(dim=1).mean()
        return error + self.config.beta * commitment, codes, before

    @torch.no_grad()
    def follow(self, codes: list[Tensor], before: list[Tensor], generator: torch.Generator) -> int:
        """Move the codebooks to what they were chosen for, and dead codes into the data; how many died."""
        dead = 0
        for place, (chosen, left) in enumerate(zip(codes, before, strict=True)):
            counts, sums, decay = self.counts[place], self.sums[place], self.config.decay
            seen = torch.bincount(chosen, minlength=len(counts)).to(counts)
            counts.mul_(decay).add_(seen, alpha=1.0 - decay)
            sums.mul_(decay).add_(torch.zeros_like(sums).index_add_(0, chosen, left), alpha=1.0 - decay)
            even = len(left) / len(counts)
            gone = torch.nonzero(counts < self.config.dead_below * even).flatten()
            if len(gone):
                drawn = torch.randint(len(left), (len(gone),), generator=generator)
                counts[gone] = even
                sums[gone] = left[drawn] * even
                dead += len(gone)
            self.codebooks[place] = sums / counts.clamp_min(1e-9)[:, None]
        return dead


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _arrays(layers: nn.Sequential) -> Layers:
    """Weights [in, out] and biases of the dense layers."""
    dense = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return tuple(
        (np.ascontiguousarray(one.weight.detach().numpy().T), one.bias.detach().numpy().copy())
        for one in dense
    )


def fit_rqvae(
    points: np.ndarray, sizes: Sequence[int], seed: int, config: RqVaeConfig
) -> tuple[Codebooks, list[dict[str, float]]]:
    """Codebooks with their encoder and decoder from vectors [n, D], and the curve of the training loss.

    On one core, since the steps are many and small; the same points and seed give the same model.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _fit(points, sizes, seed, config)
    finally:
        torch.set_num_threads(threads)


def _fit(
    points: np.ndarray, sizes: Sequence[int], seed: int, config: RqVaeConfig
) -> tuple[Codebooks, list[dict[str, float]]]:
    scale = float(1.0 / max(np.sqrt(np.square(points).mean()), 1e-12))  # numbers of size 1, whatever D is
    data = torch.from_numpy(np.ascontiguousarray(points, dtype=np.float32) * np.float32(scale))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RqVae(points.shape[1], config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    batch_size = min(config.batch_size, len(data))
    an_epoch = -(-len(data) // batch_size)
    epochs = max(1, round(config.steps / an_epoch))
    warm = max(1, round(epochs * config.warm_up))
    curve: list[dict[str, float]] = []
    for epoch in track(range(epochs), "semantic ids", unit="epoch"):
        if epoch == warm or (epoch == 0 and epochs == 1):
            with torch.no_grad():
                latents = model.encoder(data).numpy()
            found = residual_kmeans(latents, sizes, seed)
            model.start([torch.from_numpy(level) for level in found], batch_size)
        losses, dead = [], 0
        for rows in torch.split(torch.randperm(len(data), generator=generator), batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss, codes, before = model.loss(data[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            dead += model.follow(codes, before, generator)
            losses.append(float(loss.detach()))
        curve.append({"epoch": epoch + 1, "train_loss": float(np.mean(losses)), "revived": float(dead)})
    books = tuple(level.numpy().copy() for level in model.codebooks)
    return Codebooks(books, _arrays(model.encoder), _arrays(model.decoder), scale), curve
