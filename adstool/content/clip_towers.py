"""Pictures and texts through a CLIP in training: by running its towers, or from their kept outputs.

When only the projections are tuned, the towers' outputs before them never change. They are made once, kept by
the hash of the picture's pixels or of the text, and every step is then a product of two small matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from adstool.content.clip import ClipModel
from adstool.content.clip_data import ClipData, closed_texts
from adstool.content.images import hash_bytes
from adstool.device import cpu_has_bf16
from adstool.errors import AdstoolError
from adstool.progress import track
from adstool.workspace import write_arrays

BATCH = 128  # pictures or texts at once where nothing is trained
KEEP_EVERY = 16  # batches; a kill loses no more than these


class Towers(Protocol):
    """Unit vectors of a catalogue's pictures and of texts, with gradients for what is trained."""

    clip: ClipModel
    frozen: bool  # pictures have one view and texts are those of clip_data.closed_texts

    def images(self, rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Vectors [n, dim] of picture rows, as they are shown in training."""
        ...

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors [n, dim] of texts."""
        ...

    def plain_images(self, rows: np.ndarray) -> np.ndarray:
        """Vectors float32 [n, dim] of picture rows as `embed` makes them."""
        ...

    def plain_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors float32 [n, dim] of texts as `embed` makes them."""
        ...


class RunningTowers:
    """The whole model, run for every picture and text."""

    frozen = False

    def __init__(self, clip: ClipModel, data: ClipData, augment: float = 0.0) -> None:
        self.clip, self.data, self.augment = clip, data, augment
        self.bf16 = trains_in_bf16(clip)

    def images(self, rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Vectors of rows, moved and zoomed at random."""
        pictures = normalised(self.data.pictures[rows], self.clip.mean, self.clip.deviation)
        pictures = augmented(pictures, rng, self.augment).to(self.clip.device.torch)
        with torch.autocast(self.clip.device.torch.type, torch.bfloat16, enabled=self.bf16):
            found = self.clip.model.encode_image(pictures.contiguous(memory_format=torch.channels_last))
        return F.normalize(found.float(), dim=-1)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors of any texts."""
        tokens = self.clip.tokenizer(list(texts)).to(self.clip.device.torch)
        with torch.autocast(self.clip.device.torch.type, torch.bfloat16, enabled=self.bf16):
            found = self.clip.model.encode_text(tokens)
        return F.normalize(found.float(), dim=-1)

    def plain_images(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of rows by ClipModel.encode_images."""
        found = [np.zeros((0, self.clip.dim), np.float32)]
        for start in range(0, len(rows), BATCH):
            shown = self.data.pictures[rows[start : start + BATCH]].transpose(0, 2, 3, 1)
            found.append(self.clip.encode_images(list(torch.from_numpy(np.ascontiguousarray(shown)))))
        return np.concatenate(found)

    def plain_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts by ClipModel.encode_texts."""
        found = [np.zeros((0, self.clip.dim), np.float32)]
        found += [self.clip.encode_texts(texts[s : s + BATCH]) for s in range(0, len(texts), BATCH)]
        return np.concatenate(found)


class FrozenTowers:
    """The projections of a model over kept outputs of its towers; only they and the temperature are trained.

    `folder` keeps the outputs: image.npz and text.npz, each an array of hashes and one of outputs.
    """

    frozen = True

    def __init__(self, clip: ClipModel, data: ClipData, folder: Path) -> None:
        self.clip, self.data, self.folder = clip, data, folder
        self.bf16 = trains_in_bf16(clip)
        model = clip.model
        self._image, self._text = _projections(model)
        model.requires_grad_(False)
        for weight in (*self._image.weights, *self._text.weights, model.logit_scale):
            weight.requires_grad_(True)
        self._pictures = self._kept_pictures()
        self._texts: dict[str, np.ndarray] = {}
        self._keep_texts(sorted({text for pair in data.pairs for text in closed_texts(pair)}))

    def images(self, rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Vectors of rows; nothing is random."""
        return self._image(torch.from_numpy(self._pictures[rows]).to(self.clip.device.torch))

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors of texts; those not met yet go through the tower once."""
        fresh = sorted({text for text in texts if text not in self._texts})
        if fresh:
            self._keep_texts(fresh)
        features = np.stack([self._texts[text] for text in texts])
        return self._text(torch.from_numpy(features).to(self.clip.device.torch))

    def plain_images(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of rows from the kept outputs."""
        with torch.inference_mode():
            return np.asarray(self.images(rows, np.random.default_rng(0)).cpu().numpy())

    def plain_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts from the kept outputs."""
        if not len(texts):
            return np.zeros((0, self.clip.dim), np.float32)
        with torch.inference_mode():
            return np.asarray(self.texts(texts).cpu().numpy())

    def _kept_pictures(self) -> np.ndarray:
        hashes = [
            hash_bytes(np.ascontiguousarray(picture).tobytes())
            for picture in self.data.pictures[: len(self.data.pairs)]
        ]
        rows = {digest: row for row, digest in enumerate(hashes)}
        known = self._kept("image", rows, lambda some: self._tower_images(np.array([rows[d] for d in some])))
        return np.stack([known[digest] for digest in hashes])

    def _keep_texts(self, texts: list[str]) -> None:
        named = {hash_bytes(text.encode()): text for text in texts}
        known = self._kept("text", named, lambda some: self._tower_texts([named[d] for d in some]))
        self._texts |= {text: known[digest] for digest, text in named.items()}

    def _kept(self, side: str, wanted: Any, run: Any) -> dict[str, np.ndarray]:
        """Outputs by hash: those kept, and those that `run` makes of lists of hashes, kept from now on."""
        path = self.folder / f"{side}.npz"
        known = _read(path)
        missing = [digest for digest in wanted if digest not in known]
        batches = [missing[start : start + BATCH] for start in range(0, len(missing), BATCH)]
        for number, batch in enumerate(track(batches, f"{side} tower", unit="batch"), start=1):
            known |= dict(zip(batch, run(batch), strict=True))
            if number % KEEP_EVERY == 0 or number == len(batches):
                _write(path, known)
        return known

    def _tower_images(self, rows: np.ndarray) -> np.ndarray:
        pictures = normalised(self.data.pictures[rows], self.clip.mean, self.clip.deviation)
        pictures = pictures.to(self.clip.device.torch).contiguous(memory_format=torch.channels_last)
        with self._bare():
            return self._output(self.clip.model.encode_image, pictures)

    def _tower_texts(self, texts: list[str]) -> np.ndarray:
        with self._bare():
            tokens = self.clip.tokenizer(texts).to(self.clip.device.torch)
            return self._output(self.clip.model.encode_text, tokens)

    def _output(self, encode: Any, inputs: torch.Tensor) -> np.ndarray:
        with torch.no_grad(), torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.bf16):
            return np.asarray(encode(inputs).float().cpu().numpy())

    @contextmanager
    def _bare(self) -> Iterator[None]:
        """The model without its projections, in evaluation mode."""
        self.clip.model.eval()
        self._image.take_out()
        self._text.take_out()
        try:
            yield
        finally:
            self._image.put_back()
            self._text.put_back()


class _Projection:
    """The last linear step of a tower, which can be taken out of it."""

    def __init__(self, owner: torch.nn.Module, name: str) -> None:
        self.owner, self.name = owner, name
        self.part = getattr(owner, name)
        matrix = isinstance(self.part, torch.nn.Parameter)
        self.weights = [self.part] if matrix else list(self.part.parameters())
        # open_clip multiplies by a matrix only where there is one; a module must stay callable.
        self._nothing = None if matrix or name == "text_projection" else torch.nn.Identity()

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        matrix = isinstance(self.part, torch.nn.Parameter)
        return F.normalize(features @ self.part if matrix else self.part(features), dim=-1)

    def take_out(self) -> None:
        """Let the tower give what it had before this step."""
        setattr(self.owner, self.name, self._nothing)

    def put_back(self) -> None:
        """Let the tower be whole again."""
        setattr(self.owner, self.name, self.part)


def _projections(model: Any) -> tuple[_Projection, _Projection]:
    """The projections of the picture and the text tower. Raises AdstoolError where there are none."""
    visual, text = model.visual, getattr(model, "text", model)
    head = getattr(visual, "head", None)
    plain = isinstance(head, torch.nn.Sequential) and "pool" not in dict(head.named_children())
    places = [
        (visual, "proj", isinstance(getattr(visual, "proj", None), torch.nn.Parameter)),
        (visual, "head", plain and any(True for _ in head.parameters()) if head is not None else False),
    ]
    found = [_Projection(owner, name) for owner, name, there in places if there]
    if not found or getattr(text, "text_projection", None) is None:
        raise AdstoolError(
            "--set tune=projection: this CLIP has no projection after its towers that could be tuned alone.",
            "Tune the towers: --set tune=towers",
        )
    return found[0], _Projection(text, "text_projection")


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(zip(stored["hashes"].tolist(), stored["outputs"], strict=True))
    except (OSError, ValueError, KeyError):
        return {}  # a damaged cache is made anew


def _write(path: Path, known: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, {"hashes": np.array(list(known)), "outputs": np.stack(list(known.values()))})


def trains_in_bf16(clip: ClipModel) -> bool:
    """Whether products are taken in bf16: where the hardware does it."""
    kind = clip.device.torch.type
    return kind == "cuda" or (kind == "cpu" and cpu_has_bf16())


def normalised(
    pictures: np.ndarray, mean: Sequence[float] | None = None, deviation: Sequence[float] | None = None
) -> torch.Tensor:
    """uint8 [n, 3, height, width] as open_clip prepares pictures: float32, by CLIP's mean and deviation."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    centre = torch.tensor(mean or OPENAI_DATASET_MEAN).view(1, 3, 1, 1)
    spread = torch.tensor(deviation or OPENAI_DATASET_STD).view(1, 3, 1, 1)
    return (torch.from_numpy(np.array(pictures)).float() / 255.0 - centre) / spread


def augmented(pictures: torch.Tensor, rng: np.random.Generator, strength: float) -> torch.Tensor:
    """Pictures mirrored, moved and zoomed at random: one bilinear resampling a batch; 0 leaves them alone."""
    if strength <= 0:
        return pictures
    n = len(pictures)
    zoom = 1.0 + strength * rng.uniform(-1.0, 0.5, n)
    mirror = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    shift = strength * rng.uniform(-0.5, 0.5, (n, 2))
    theta = np.zeros((n, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = zoom * mirror, zoom, shift
    grid = F.affine_grid(torch.from_numpy(theta), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)
