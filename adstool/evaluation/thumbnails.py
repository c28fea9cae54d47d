"""Catalogue pictures as small data: URIs, encoded anew so that no byte of a file reaches the page."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

from PIL import Image, ImageOps

from adstool.content.images import ImageProblem, is_url, load_image

SIDE = 240  # pixels of the longer side
QUALITY = 78


class Thumbnails:
    """Thumbnails by the catalogue's `image` value, each made once. None stands for no usable picture."""

    def __init__(self, side: int = SIDE) -> None:
        self.side = side
        self._made: dict[str, str | None] = {}

    def get(self, image: str | None) -> str | None:
        """The picture as a data: URI; None for no picture, a URL (never fetched) or a damaged file."""
        if not image or is_url(image):
            return None
        if image not in self._made:
            try:
                self._made[image] = _encode(load_image(image, None), self.side)
            except (ImageProblem, OSError):
                self._made[image] = None
        return self._made[image]


def _encode(picture: Image.Image, side: int) -> str:
    upright: Any = ImageOps.exif_transpose(picture)
    flat = Image.new("RGB", upright.size, (255, 255, 255))
    layered = upright.convert("RGBA")
    flat.paste(layered, mask=layered.getchannel("A"))
    flat.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = BytesIO()
    flat.save(out, format="WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
