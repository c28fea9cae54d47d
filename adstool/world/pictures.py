"""Pictures of synthetic items: the category decides the outline, the style the pattern and the backdrop.

Each is a palette PNG of five colours, well under 1 kB, so that thousands fit beside the tables. The
object's colour is also in the text; pattern and backdrop (the style) are nowhere else.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from adstool.progress import track
from adstool.world.vocabulary import COLOURS, STYLES, Ints, Taxonomy

Points = tuple[tuple[float, float], ...]
# (kind, points): a polygon, or an ellipse by its corners; "cut" takes the ellipse or polygon away again.
Stroke = tuple[str, Points]

OUTLINES: dict[str, tuple[Stroke, ...]] = {
    "dresses": (
        ("polygon", ((0.38, 0.1), (0.62, 0.1), (0.6, 0.42), (0.84, 0.9), (0.16, 0.9), (0.4, 0.42))),
        ("cut", ((0.43, 0.04), (0.57, 0.18))),
    ),
    "shirts": (
        ("polygon", ((0.3, 0.18), (0.7, 0.18), (0.94, 0.4), (0.82, 0.54), (0.7, 0.44), (0.7, 0.86),
                     (0.3, 0.86), (0.3, 0.44), (0.18, 0.54), (0.06, 0.4))),
        ("cut", ((0.4, 0.1), (0.6, 0.28))),
    ),
    "shoes": (
        ("polygon", ((0.12, 0.34), (0.36, 0.34), (0.5, 0.54), (0.88, 0.62), (0.92, 0.76), (0.12, 0.76))),
        ("polygon", ((0.1, 0.76), (0.94, 0.76), (0.94, 0.84), (0.1, 0.84))),
    ),
    "bags": (
        ("ellipse", ((0.3, 0.1), (0.7, 0.66))),
        ("cut", ((0.38, 0.2), (0.62, 0.6))),
        ("polygon", ((0.16, 0.42), (0.84, 0.42), (0.92, 0.88), (0.08, 0.88))),
    ),
    "lamps": (
        ("polygon", ((0.34, 0.1), (0.66, 0.1), (0.86, 0.48), (0.14, 0.48))),
        ("polygon", ((0.46, 0.48), (0.54, 0.48), (0.54, 0.84), (0.46, 0.84))),
        ("ellipse", ((0.28, 0.8), (0.72, 0.94))),
    ),
    "chairs": (
        ("polygon", ((0.22, 0.08), (0.36, 0.08), (0.36, 0.5), (0.22, 0.5))),
        ("polygon", ((0.22, 0.48), (0.82, 0.48), (0.82, 0.6), (0.22, 0.6))),
        ("polygon", ((0.22, 0.6), (0.32, 0.6), (0.32, 0.94), (0.22, 0.94))),
        ("polygon", ((0.72, 0.6), (0.82, 0.6), (0.82, 0.94), (0.72, 0.94))),
    ),
    "vases": (
        ("ellipse", ((0.22, 0.36), (0.78, 0.94))),
        ("polygon", ((0.4, 0.2), (0.6, 0.2), (0.56, 0.46), (0.44, 0.46))),
        ("polygon", ((0.32, 0.1), (0.68, 0.1), (0.6, 0.22), (0.4, 0.22))),
    ),
    "mirrors": (
        ("ellipse", ((0.2, 0.06), (0.8, 0.94))),
        ("cut", ((0.36, 0.24), (0.64, 0.76))),
    ),
    "mugs": (
        ("ellipse", ((0.52, 0.32), (0.92, 0.76))),
        ("cut", ((0.62, 0.42), (0.82, 0.66))),
        ("polygon", ((0.16, 0.22), (0.7, 0.22), (0.7, 0.86), (0.16, 0.86))),
    ),
    "bowls": (
        ("ellipse", ((0.08, 0.1), (0.92, 0.86))),
        ("cutbox", ((0.0, 0.0), (1.0, 0.46))),
        ("polygon", ((0.36, 0.82), (0.64, 0.82), (0.68, 0.92), (0.32, 0.92))),
    ),
    "teapots": (
        ("ellipse", ((0.2, 0.3), (0.76, 0.88))),
        ("polygon", ((0.7, 0.62), (0.94, 0.28), (0.98, 0.36), (0.74, 0.78))),
        ("ellipse", ((0.42, 0.16), (0.54, 0.32))),
        ("ellipse", ((0.04, 0.38), (0.34, 0.74))),
        ("cut", ((0.1, 0.46), (0.24, 0.66))),
    ),
    "knives": (
        ("polygon", ((0.06, 0.2), (0.14, 0.1), (0.62, 0.58), (0.5, 0.66))),
        ("polygon", ((0.54, 0.62), (0.64, 0.54), (0.92, 0.84), (0.82, 0.94))),
    ),
    "tents": (
        ("polygon", ((0.5, 0.12), (0.96, 0.88), (0.04, 0.88))),
        ("cutpolygon", ((0.5, 0.5), (0.62, 0.88), (0.38, 0.88))),
    ),
    "guitars": (
        ("ellipse", ((0.22, 0.56), (0.78, 0.98))),
        ("ellipse", ((0.3, 0.4), (0.7, 0.7))),
        ("polygon", ((0.45, 0.04), (0.55, 0.04), (0.55, 0.5), (0.45, 0.5))),
        ("cut", ((0.43, 0.58), (0.57, 0.72))),
    ),
    "balls": (("ellipse", ((0.14, 0.14), (0.86, 0.86))),),
    "kites": (
        ("polygon", ((0.5, 0.04), (0.82, 0.36), (0.5, 0.76), (0.18, 0.36))),
        ("polygon", ((0.48, 0.74), (0.54, 0.74), (0.66, 0.96), (0.58, 0.96))),
    ),
}  # fmt: skip
BACKDROPS: dict[str, tuple[int, int, int]] = {
    "plain": (246, 246, 242),
    "stripes": (206, 222, 236),
    "dots": (250, 224, 206),
    "checks": (196, 200, 192),
    "diagonal": (222, 206, 232),
    "rings": (120, 130, 144),
    "zigzag": (210, 236, 214),
    "speckle": (88, 84, 92),
}


def pattern(style: str, size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """[size, size] where the style's second tone lies; period, phase and slant jitter a little."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float64) * (64.0 / size)
    period = 9.0 * rng.uniform(0.85, 1.2)
    x, y = columns + rng.uniform(0, period), rows + rng.uniform(0, period)
    half = period / 2
    second = np.zeros((size, size), dtype=bool)
    if style == "stripes":
        second = x % period < half
    elif style == "dots":
        second = (x % period - half) ** 2 + (y % period - half) ** 2 < (0.32 * period) ** 2
    elif style == "checks":
        second = (x % (2 * period) < period) ^ (y % (2 * period) < period)
    elif style == "diagonal":
        second = (x + y * rng.uniform(0.8, 1.2)) % period < half
    elif style == "rings":
        centre = rng.uniform(24, 40, 2)
        second = np.hypot(columns - centre[0], rows - centre[1]) % period < half
    elif style == "zigzag":
        second = (y + np.abs(x % (2 * period) - period)) % period < half
    elif style == "speckle":
        coarse = rng.random((size // 2 + 1, size // 2 + 1)) < 0.3
        second = np.repeat(np.repeat(coarse, 2, axis=0), 2, axis=1)[:size, :size]
    return second


def outline(category: str, size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """[size, size] of the object's outline, scaled, moved and perhaps mirrored."""
    scale = rng.uniform(0.78, 0.98)
    shift = (1 - scale) / 2 + rng.uniform(-0.05, 0.05, 2)
    mirror = bool(rng.random() < 0.5)
    canvas = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(canvas)
    for kind, points in OUTLINES[category]:
        places = [
            (((1 - x if mirror else x) * scale + shift[0]) * size, (y * scale + shift[1]) * size)
            for x, y in points
        ]
        shade = 0 if kind.startswith("cut") else 255
        if kind in ("polygon", "cutpolygon"):
            pen.polygon(places, fill=shade)
            continue
        (x0, y0), (x1, y1) = places
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        if kind == "cutbox":
            pen.rectangle(box, fill=shade)
        else:
            pen.ellipse(box, fill=shade)
    return np.asarray(canvas) > 127


def draw(category: str, style: str, colour: str, size: int, rng: np.random.Generator) -> Image.Image:
    """The picture of one item, `size` x `size`, as a palette image."""
    shape = outline(category, size, rng)
    second = pattern(style, size, rng)
    pixels = np.where(shape, np.where(second, 3, 2), np.where(second, 1, 0)).astype(np.uint8)
    edge = shape ^ (
        shape & np.roll(shape, 1, 0) & np.roll(shape, -1, 0) & np.roll(shape, 1, 1) & np.roll(shape, -1, 1)
    )
    pixels[edge] = 4
    body = np.array(COLOURS[colour], dtype=np.float64) + rng.normal(0, 8, 3)
    backdrop = np.array(BACKDROPS[style], dtype=np.float64) + rng.normal(0, 6, 3)
    light = body + (255 - body) * 0.65
    palette = np.stack([backdrop, backdrop * 0.92, body, light, body * 0.45])
    image = Image.fromarray(pixels, mode="P")
    image.putpalette(np.clip(np.rint(palette), 0, 255).astype(np.uint8).tobytes())
    return image


def draw_all(
    folder: Path,
    names: list[str],
    words: Taxonomy,
    category: Ints,
    style: Ints,
    colour: Ints,
    size: int,
    seed: int,
) -> None:
    """Write one PNG an item into `folder`, under `names`; each depends on the seed and its place only."""
    os.makedirs(folder, exist_ok=True)
    colours = tuple(COLOURS)
    for i in track(range(len(names)), "pictures", unit="picture"):
        rng = np.random.default_rng([seed, 101, i])
        image = draw(words.categories[category[i]], STYLES[style[i]], colours[colour[i]], size, rng)
        image.save(folder / names[i], format="PNG", compress_level=9)
