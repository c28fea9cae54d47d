"""Pictures that cannot be used: each is told apart, none stops the work."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from adstool.content import images
from adstool.content.images import (
    ImageProblem,
    decode_image,
    hash_image,
    is_url,
    load_image,
    read_image,
    resolve_image,
)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    shape = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", shape)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.png"
    Image.new("RGB", (30, 20), (200, 10, 10)).save(path)
    return path.resolve()


def test_a_whole_picture_loads(whole: Path) -> None:
    assert load_image(str(whole), None).size == (30, 20)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"not a picture at all", "is none of JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is none of JPEG"),
        (png_header(60_000, 60_000), "unpacks to more than 64,000,000 pixels"),
        (png_header(9_000, 9_000), "unpacks to 9000 x 9000"),
        (png_header(300, 300), "cannot be decoded"),
    ],
    ids=["empty", "text", "postscript", "bomb", "large", "hollow"],
)
def test_damaged_files_say_why(tmp_path: Path, content: bytes, reason: str) -> None:
    path = (tmp_path / "bad.png").resolve()
    path.write_bytes(content)
    with pytest.raises(ImageProblem, match=reason):
        load_image(str(path), None)


def test_a_truncated_jpeg_is_refused(tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.effect_noise((200, 200), 80).convert("RGB").save(path)
    with pytest.raises(ImageProblem, match="cannot be decoded"):
        decode_image(path.read_bytes()[:2000])


def test_missing_and_oversized_files_say_why(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, problem = hash_image(str(tmp_path.resolve() / "gone.png"), None)
    assert problem == "is missing"
    assert digest == hash_image(str(tmp_path.resolve() / "gone too.png"), None)[0]
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    assert "more than" in str(hash_image(str(whole), None)[1])


def test_links_that_lead_elsewhere_are_refused(tmp_path: Path, whole: Path) -> None:
    inside = tmp_path.resolve() / "pictures"
    inside.mkdir()
    (inside / "link.png").symlink_to(whole)
    with pytest.raises(ImageProblem, match="leads elsewhere"):
        resolve_image(str(inside / "link.png"), None)
    for escape in ("link.png", "../whole.png", "a/../../whole.png"):
        with pytest.raises(ImageProblem, match="leads out"):
            resolve_image(escape, inside)
    (inside / "own.png").write_bytes(whole.read_bytes())
    assert resolve_image("own.png", inside) == inside / "own.png"
    with pytest.raises(ImageProblem, match="no folder"):
        resolve_image("own.png", None)


def test_urls_are_known_as_such() -> None:
    assert is_url("https://example.com/a.jpg")
    assert is_url("s3://bucket/a.jpg")
    assert not is_url("/data/a.jpg")
    assert not is_url("a.jpg")
    assert not is_url("c:/pictures/a.jpg")


def test_what_has_no_end_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for endless in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
        with pytest.raises(ImageProblem, match="is no file"):
            read_image(endless)
