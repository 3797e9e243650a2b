"""Shards of other programs: what is there is read as it is, and nothing of the rest assumed."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from shard_helpers import (
    crop,
    crops,
    jpeg,
    load_npz,
    raw_tar,
    run_cli,
    tar_bytes,
    write_pose,
)

from handclr_cli.contract.errors import DamagedError, HandclrError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import group, unrepeated
from handclr_cli.contract.tar import StreamCursor, sample_name

# The first block of an AppleDouble file, which macOS's tar writes beside each file as ._NAME.
APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(60)


def read(data: bytes) -> list[Sample]:
    return list(group(StreamCursor(io.BytesIO(data)), "test.tar"))


def members_of(samples: list[Sample]) -> list[tuple[str, bytes]]:
    found = []
    for sample in samples:
        found += [(f"{sample.key}.{name}", bytes(data)) for name, data in sample.members.items()]
    return found


def png(side: int = 16, shade: int = 128) -> bytes:
    return cv2.imencode(".png", np.full((side, side, 3), shade, np.uint8))[1].tobytes()


def test_names_of_members() -> None:
    assert sample_name("set.v1/a.b.JPG") == ("set.v1/a", "b.jpg")
    assert sample_name("a.jpg") == ("a", "jpg")
    for name in ("README", "set/", "._a.jpg", "set/._a.jpg", ".DS_Store", "set/.DS_Store"):
        assert sample_name(name) is None


def test_the_files_of_macos_are_no_members() -> None:
    """They stand before each file of their name, and would cut every sample into pieces."""
    plain = members_of(crops())
    noisy = [("./._.", APPLE_DOUBLE), (".DS_Store", b"Bud1"), ("README", b"")]
    for name, data in plain:
        noisy += [(f"._{name}", APPLE_DOUBLE), (name, data), ("set/.DS_Store", b"Bud1")]
    assert members_of(read(raw_tar(noisy))) == plain


@pytest.mark.parametrize("form", ["jpg", "jpeg", "png"])
def test_crops_are_jpg_jpeg_or_png(form: str) -> None:
    picture = png(24) if form == "png" else jpeg(128, 24)
    sample = Sample("a", {form: picture}, None, "x.tar")
    assert sample.side == sample.checked_side() == 24 and sample.image.shape == (24, 24, 3)
    (again,) = read(tar_bytes([sample]))
    assert again.members == {form: picture}
    cut = Sample("a", {form: picture[:-9]}, None, "x.tar")
    with pytest.raises(HandclrError, match=rf"^x\.tar: sample a: {form}: damaged, or cut short"):
        cut.checked_side()
    with pytest.raises(HandclrError, match=rf"^x\.tar: sample a: bad {form}: not an image"):
        _ = Sample("a", {form: b"junk"}, None, "x.tar").image


def test_a_jpg_is_the_crop_where_a_png_is_something_else() -> None:
    sample = Sample("a", {"png": png(16), "jpg": jpeg(128, 24), "seg.png": png(8)})
    assert sample.side == 24
    assert Sample("a", {"png": png(16), "jpeg": jpeg(128, 24)}).side == 24
    with pytest.raises(HandclrError, match="sample a has no jpg"):
        _ = Sample("a", {"seg.png": png(8), "webp": b"x"}).side


def test_no_side_is_assumed_where_there_is_no_image() -> None:
    with pytest.raises(HandclrError, match=r"^x\.tar: sample a has no jpg"):
        _ = Sample("a", {"json": b"{}"}, None, "x.tar").side


def test_a_key_that_comes_again_is_an_error(tmp_path: Path) -> None:
    """Not two halves of a sample, one without a picture and one without keypoints."""
    members = members_of(crops())
    apart = sorted(members, key=lambda member: member[0].partition(".")[2])
    said = r"^test\.tar: key attic_00000000_r comes again after others; keys must be unique, and"
    for data in (raw_tar(apart), raw_tar([*members, members[0]])):
        with pytest.raises(DamagedError, match=said):
            read(data)
    (tmp_path / "a.tar").write_bytes(raw_tar(apart))
    with pytest.raises(DamagedError, match="key attic_00000000_r comes again"):
        ShardIndex([str(tmp_path / "a.tar")])


def test_a_note_within_a_sample_is_an_error_too() -> None:
    data = raw_tar([("a.jpg", jpeg()), ("__history__", b"{}"), ("a.json", b"{}")])
    with pytest.raises(DamagedError, match="key a comes again"):
        read(data)


def test_several_archives_that_become_one_repeat_no_key() -> None:
    assert len(list(unrepeated(crops()))) == 6
    with pytest.raises(DamagedError, match="key attic_00000001_r comes again"):
        list(unrepeated([*crops(), crop("attic", 1)]))


def embedded(folder: Path, members: list[tuple[str, bytes]], *options: str) -> np.ndarray:
    """What pca makes of a tar of any members, on axes that it is given."""
    write_pose(folder / "basis.npz", [0])
    done = run_cli("pca", "--basis", folder / "basis.npz", *options, stdin=raw_tar(members))
    assert done.returncode == 0, done.stderr
    return load_npz(done.stdout)["embedding"]


@pytest.mark.slow
def test_embeddings_do_not_depend_on_how_a_crop_is_called(tmp_path: Path) -> None:
    plain = members_of(crops())
    expected = embedded(tmp_path, plain)
    for suffix, picture in (("jpeg", jpeg()), ("JPEG", jpeg()), ("png", png())):
        renamed = []
        for name, data in plain:
            key, _, kind = name.partition(".")
            renamed.append((f"{key}.{suffix}", picture) if kind == "jpg" else (name, data))
        np.testing.assert_array_equal(embedded(tmp_path, renamed), expected)
    double = []
    for name, data in plain:
        double += [(f"._{name}", APPLE_DOUBLE), (name, data)]
    np.testing.assert_array_equal(embedded(tmp_path, double), expected)
