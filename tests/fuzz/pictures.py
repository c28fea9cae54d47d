"""Pictures that are none, are damaged, or unpack to more than memory; and paths that lead elsewhere."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzz.containers import mutated
from fuzz.events import balance
from fuzz.harness import Place, expect

MODES = ("RGB", "L", "1", "P", "CMYK", "RGBA", "LA", "I;16", "I", "F", "YCbCr", "LAB", "HSV")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@lru_cache(maxsize=8)
def png_bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is of so many black pixels, and is."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width // 8 + 1)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def picture(mode: str, form: str, size: tuple[int, int] = (20, 16)) -> bytes | None:
    """A good picture, or None where the format has no such mode."""
    random_pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    image = Image.fromarray(random_pixels)
    try:
        image = (
            image.convert("L").convert("I").convert(mode)
            if mode in ("I;16", "I", "F")
            else image.convert(mode)
        )
        target = io.BytesIO()
        image.save(target, form)
    except (OSError, ValueError, KeyError):
        return None
    return target.getvalue()


def animated(form: str, frames: int) -> bytes:
    """A picture of several frames."""
    images = [Image.new("RGB", (8, 8), (n % 255, 0, 0)) for n in range(frames)]
    target = io.BytesIO()
    images[0].save(target, form, save_all=True, append_images=images[1:])
    return target.getvalue()


def content(rng: random.Random) -> tuple[str, bytes]:
    """What it is, and the bytes of a picture file."""
    form = rng.choice(("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"))
    mode = rng.choice(MODES)
    good = picture(mode, form) or picture("RGB", "PNG") or b""
    how = rng.choice(
        (
            "good",
            "cut",
            "changed",
            "bomb",
            "huge sides",
            "animated",
            "text",
            "empty",
            "other format",
            "thin",
            "chunk bomb",
            "orientation",
            "tiny",
        )
    )
    if how == "good":
        return f"{form} {mode}", good
    if how == "cut":
        return "cut", good[: rng.randrange(1, len(good))]
    if how == "changed":
        return "changed", mutated(rng, good, rng.choice((1, 5, 40)))
    if how == "bomb":
        return "bomb", png_bomb(*rng.choice(((30_000, 30_000), (9000, 9000), (65_000, 2000))))
    if how == "huge sides":
        header = struct.pack(">IIBBBBB", 2**31 - 1, rng.choice((1, 2**31 - 1)), 8, 2, 0, 0, 0)
        return how, b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"") + _chunk(
            b"IEND", b""
        )
    if how == "animated":
        return how, animated(rng.choice(("GIF", "WEBP", "TIFF", "PNG")), rng.choice((2, 60)))
    if how == "text":
        return how, rng.choice(
            (
                b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
                b"<html></html>",
                b"%PDF-1.4",
                b"%!PS-Adobe\n(/etc/passwd) run",
                b"GIF89a",
                b"\xff\xd8\xff",
                b"II*\x00",
                b"RIFF\x00\x00\x00\x00WEBP",
                b"\x00" * 500,
                b"MZ",
                b"push graphic-context\nfill 'url(https://x|id)'",
            )
        )
    if how == "empty":
        return how, b""
    if how == "other format":
        return how, picture("RGB", rng.choice(("ICO", "PPM", "TGA", "PCX", "EPS", "PDF", "ICNS"))) or b""
    if how == "thin":
        return how, picture("RGB", "PNG", rng.choice(((1, 4000), (4000, 1), (1, 1)))) or b""
    if how == "chunk bomb":
        text = zlib.compress(bytes(50_000_000), 9)
        whole = picture("RGB", "PNG") or b""
        return how, whole[:33] + _chunk(b"zTXt", b"a\x00\x00" + text) + whole[33:]
    if how == "orientation":
        exif = Image.Exif()
        exif[0x0112] = rng.choice((6, 9, 0))
        target = io.BytesIO()
        Image.new("RGB", (9, 5)).save(target, "JPEG", exif=exif)
        return how, target.getvalue()
    return how, picture(mode, form, (1, 1)) or b""


@lru_cache(maxsize=1)
def clip() -> Any:
    """The small CLIP that ships, loaded once."""
    from adstool.content.clip import load_folder, shipped_folder

    return load_folder(shipped_folder())


def decode_case(rng: random.Random, place: Place) -> str:
    """A picture file: shaped for the model, or refused with one sentence; in bounded memory and time."""
    from adstool.content.images import ImageProblem, hash_image, load_image

    what, data = content(rng)
    path = place.write(rng.choice(("a.png", "a.jpg", "a.txt", "a")), data)
    hashed, problem = hash_image(str(path), None)
    expect(len(hashed) == 32, "no hash")
    try:
        shaped = clip().prepare(load_image(str(path), None))
    except ImageProblem as refused:
        expect(0 < len(str(refused)) < 500, f"{what}: {refused}")
        expect(what not in ("bomb",) or "unpacks" in str(refused), f"{what}: {refused}")
        return f"{what} refused"
    expect(problem is None and what not in ("bomb", "huge sides", "empty"), f"{what} was taken for a picture")
    expect(shaped.shape == (*clip().pixels, 3), f"{what}: {tuple(shaped.shape)}")
    vector = clip().encode_images([shaped])
    expect(np.isfinite(vector).all(), f"{what}: a vector that is none")
    return what.split()[0] if " " in what and what.split()[1] in MODES else what


def _odd_files(place: Place) -> dict[str, bool]:
    """Image values of a catalogue, and whether each may stand."""
    root = place.files / "catalogue"
    outside = place.write("outside.png", picture("RGB", "PNG") or b"")
    inside = place.write("catalogue/pictures/in.png", picture("RGB", "PNG") or b"")
    links = {
        "link-in.png": inside,
        "link-out.png": outside,
        "loop.png": root / "loop.png",
        "zero.png": Path("/dev/zero"),
        "gone.png": root / "nowhere.png",
        "up": place.files,
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe.png")
    return {
        "pictures/in.png": True,
        str(inside): True,
        "pictures/../pictures/in.png": True,
        "./pictures//in.png": True,
        "link-in.png": True,
        "nowhere.png": True,
        "gone.png": True,
        "pipe.png": True,
        "loop.png": True,
        "https://example.com/a.png?x='\"": True,
        "ftp://x": True,
        "link-out.png": False,
        "zero.png": False,
        "up/outside.png": False,
        "../outside.png": False,
        str(outside): False,
        "/etc/passwd": False,
        "/dev/zero": False,
        "pictures/../../outside.png": False,
        "nul\x00.png": False,
        "file:///etc/passwd": False,
        "FILE:///etc/passwd": False,
        ".": False,
        "..": False,
    }


LOOSE = (
    "x" * 300 + ".png",
    "\\..\\..\\outside.png",
    "C:\\x.png",
    "~/x.png",
    "$HOME/x.png",
    "pictures",
    "javascript:alert(1)",
    "data:image/png;base64,AAAA",
    " pictures/in.png",
    "\u202e.png",
    "a\nb.png",
)


def paths_case(rng: random.Random, place: Place) -> str:
    """Image paths of a catalogue: those that leave its folder are refused by line, the others stand."""
    known = _odd_files(place)
    chosen = rng.sample([*known, *LOOSE], 8)
    table, key = rng.choice((("pins", "pin_id"), ("ads", "ad_id")))
    rows = [
        {key: f"i{n}", "campaign_id": "c", "title": f"t{n}", "image": value} for n, value in enumerate(chosen)
    ]
    path = place.write(f"catalogue/{table}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    said = place.run("ingest", path)
    expect(said.code == 0, f"refused whole: {said.err[:300]}")
    balance(said)
    lines = {line for (line,) in place.rows("select line from rejects")}
    held = dict(place.rows(f"select {key}, image from {table} where {key} <> 'held'"))
    root = os.path.realpath(place.files / "catalogue")
    for number, value in enumerate(chosen):
        refused = number + 1 in lines
        expect(
            refused != (f"i{number}" in held),
            f"{value!r}: refused {refused}, and held {f'i{number}' in held}",
        )
        if value in known:
            expect(refused != known[value], f"{value!r}: refused {refused}, should be {not known[value]}")
        stored = held.get(f"i{number}")
        if stored and "://" not in stored:
            expect(os.path.realpath(stored).startswith(root + os.sep), f"{value!r} became {stored!r}")
    if rng.random() < 0.25:
        said = place.run("embed", rng.choice(("all", table)))
        some = "All else is embedded." in said.err
        expect(said.code == 0 or some, f"embed failed: {said.err[:500]}")
        answer = said.json
        expect(answer["embedded"] + answer["failed"] >= len(held), f"{answer} of {len(held)} items")
        return "embedded"
    return "paths"


def search_case(rng: random.Random, place: Place) -> str:
    """A picture or odd words to search for, in a catalogue of one item."""
    rows = [{"pin_id": "p1", "title": "Red dress", "image": None}]
    said = place.run("ingest", place.write("pins.jsonl", json.dumps(rows[0]) + "\n"))
    expect(said.code == 0 and place.run("embed", "all").code == 0, "nothing to search in")
    what, data = content(rng)
    path: Any = place.write("asked.png", data)
    path = rng.choice(
        (path,) * 5
        + ("/dev/zero", "/dev/null", place.files, place.files / "gone.png", "/proc/self/mem", "-", "")
    )
    said = place.run(
        "search",
        "--image",
        path,
        *rng.choice(([], ["-k", "0"], ["-k", "9" * 20], ["--in", "x"], ["--category", "'"])),
    )
    return (
        f"search {what} {'refused' if said.code else ''}".strip()
        if "asked" in str(path)
        else "search odd place"
    )
