"""Reading catalogue pictures: safely, with a reason when one cannot be used."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

MAX_BYTES = 64 * 2**20  # a larger file is not a product picture
MAX_PIXELS = 64_000_000  # refused before decoding: a small file can unpack to gigabytes
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # no format whose decoder runs programs
# Our limits refuse what Pillow would only warn of; of a tag out of place nobody needs to know.
warnings.filterwarnings("ignore", module=r"PIL\.")
URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


class ImageProblem(Exception):
    """A picture that cannot be used; its text says why, for the user."""


def is_url(image: str) -> bool:
    """Whether the catalogue names a picture elsewhere; those are kept and never fetched."""
    return bool(URL.match(image))


def resolve_image(image: str, folder: Path | None) -> Path:
    """The file of a catalogue's `image` value. Raises ImageProblem when it lies or leads outside.

    Ingestion stores absolute resolved paths, so a path that resolves elsewhere now was turned into a link
    after it was checked. A relative value is taken from `folder` and may not leave it.
    """
    path = Path(image)
    if path.is_absolute():
        if os.path.realpath(path) != str(path):
            raise ImageProblem("is a link that leads elsewhere")
        return path
    if folder is None:
        raise ImageProblem("is a relative path and no folder of pictures was given")
    root = os.path.realpath(folder)
    resolved = os.path.realpath(Path(root) / path)
    if os.path.commonpath([root, resolved]) != root:
        raise ImageProblem(f"leads out of {folder}")
    return Path(resolved)


def read_image(path: Path) -> bytes:
    """The bytes of a picture file. Raises ImageProblem when it is missing, empty or too large."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, /dev/zero has no end
            raise ImageProblem("is no file")
        if status.st_size > MAX_BYTES:
            raise ImageProblem(f"is {status.st_size / 2**20:.0f} MiB, more than {MAX_BYTES / 2**20:.0f}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ImageProblem("is missing") from None
    except OSError as error:
        raise ImageProblem(f"cannot be read: {error.strerror or error}") from None
    if not content:
        raise ImageProblem("is empty")
    return content


def decode_image(content: bytes) -> Image.Image:
    """The decoded picture, in the mode of its file. Raises ImageProblem."""
    try:
        picture = Image.open(BytesIO(content), formats=FORMATS)
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise ImageProblem(f"unpacks to {width} x {height} pixels, more than {MAX_PIXELS:,} in all")
        picture.load()
    except UnidentifiedImageError:
        raise ImageProblem(f"is none of {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise ImageProblem(f"unpacks to more than {MAX_PIXELS:,} pixels") from None
    except ImageProblem:
        raise
    except Exception as error:  # decoders raise many kinds on damaged files
        raise ImageProblem(f"cannot be decoded: {error}") from None
    return picture


def hash_bytes(content: bytes) -> str:
    """A short hash of file content or encoded text, 128 bits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def hash_image(image: str, folder: Path | None) -> tuple[str, str | None]:
    """(hash of the picture, None), or (a hash that stands for the problem, what the problem is)."""
    try:
        return hash_bytes(read_image(resolve_image(image, folder))), None
    except ImageProblem as problem:
        return hash_bytes(f"problem: {problem}".encode()), str(problem)


def load_image(image: str, folder: Path | None) -> Image.Image:
    """The decoded picture of a catalogue's `image` value. Raises ImageProblem."""
    return decode_image(read_image(resolve_image(image, folder)))
