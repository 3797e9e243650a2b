"""Images that are told by their bytes: size, shape, and whether all of it is there."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.pictures import check_whole, image_size, is_jpeg, square_side

PICTURE = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
KINDS = ("jpg", "progressive", "png", "grey", "sixteen")


def encoded(kind: str, image: np.ndarray = PICTURE) -> bytes:
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1] if kind == "progressive" else []
    if kind == "grey":
        image = image[..., 0]
    elif kind == "sixteen":
        image = image.astype(np.uint16) * 256
    suffix = ".jpg" if kind in ("jpg", "progressive") else ".png"
    return cv2.imencode(suffix, image, options)[1].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_is_in_the_header(kind: str) -> None:
    assert image_size(encoded(kind)) == (40, 40)
    wide = encoded(kind, PICTURE[:30])
    assert image_size(memoryview(wide)) == (40, 30)
    with pytest.raises(HandclrError, match=r"^a\.tar: sample b: jpg: not square: 40x30 pixels"):
        square_side(wide, "a.tar: sample b: jpg")
    assert is_jpeg(wide) == (kind in ("jpg", "progressive"))


def test_padding_between_the_segments_of_a_jpeg() -> None:
    data = encoded("jpg")
    assert image_size(data[:2] + b"\xff\xff\xff" + data[2:]) == (40, 40)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xd8", b"words " * 9, encoded("jpg")[:100], encoded("png")[:20], b"\xff" * 99],
)
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(HandclrError, match=r"^here: not a JPEG or PNG image$"):
        image_size(data, "here")


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_is_seen_without_decoding(kind: str) -> None:
    data = encoded(kind)
    check_whole(data, "")
    check_whole(memoryview(data), "")
    for behind in (bytes(700), b"notes of a camera"):
        check_whole(data + behind, "")
    for end in np.linspace(200, len(data) - 1, 30).astype(int).tolist():
        for hole in (b"", bytes(len(data) - end)):
            with pytest.raises(HandclrError, match=r"^here: damaged, or cut short$"):
                check_whole(data[:end] + hole, "here")


def test_a_changed_byte_of_a_png_is_seen() -> None:
    data = bytearray(encoded("png"))
    data[len(data) // 2] ^= 1
    with pytest.raises(HandclrError, match="damaged"):
        check_whole(bytes(data), "here")


def test_a_thumbnail_does_not_end_a_jpeg() -> None:
    """The end of an image within the headers of another is not its own."""
    inner, data = encoded("jpg", PICTURE[:8, :8]), encoded("jpg")
    both = data[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner + data[2:]
    assert image_size(both) == (40, 40)
    check_whole(both, "")
    with pytest.raises(HandclrError, match="cut short"):
        check_whole(both[:-40], "here")
