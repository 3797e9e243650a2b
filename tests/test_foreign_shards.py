"""Shards of other programs: what is there is read as it is, and nothing of the rest assumed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from labelled_helpers import labelled_sample
from shard_helpers import (
    crop,
    crops,
    error_line,
    jpeg,
    load_npz,
    raw_tar,
    run_cli,
    tar_bytes,
    write_pose,
    write_shard,
)

from handclr_cli.contract.errors import DamagedError, HandclrError, UsageError
from handclr_cli.contract.fields import encode_object
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import group, unrepeated
from handclr_cli.contract.tar import StreamCursor, sample_name
from handclr_cli.evaluation.labels import read_labels
from handclr_cli.similarity.pose_reading import read_poses
from handclr_cli.similarity.pose_store import PoseStore

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


def bare(sample: Sample, key: str, **info: object) -> Sample:
    """A crop under a foreign key, whose JSON, where it has any, says what it is told."""
    members = {name: data for name, data in sample.members.items() if name != "json"}
    if info:
        members["json"] = encode_object(info)
    return Sample(key, members)


def foreign(**info: object) -> list[Sample]:
    """Six crops of two videos, under keys of another program."""
    return [bare(one, f"{one.info['video']}/f{n}", **info) for n, one in enumerate(crops())]


def videos(folder: Path, samples: list[Sample], word: str | None = None) -> list[str]:
    """The videos that pca says, one for each crop."""
    shard = write_shard(folder / "hands.tar", samples)
    names = read_poses([str(shard)], PoseStore(), word).names
    return [name.decode() for name in names["video"][names["video_id"]]]


def test_no_crop_is_taken_for_a_video_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else mine would pair crops of one video, which Eq. 1 forbids."""
    with pytest.raises(HandclrError) as caught:
        videos(tmp_path, foreign())
    assert str(caught.value) == (
        f"video_from: {tmp_path}/hands.tar: sample attic/f0: neither a JSON member nor its key "
        "names its video; name a field of its JSON or a pattern on its key that does"
    )
    assert videos(tmp_path, foreign(), "^(.*)/") == ["attic"] * 3 + ["barn"] * 3
    said = "video names were given, not read: 6 crops of 6 are named by it: 2 videos, such as attic"
    assert said in capsys.readouterr().err
    assert videos(tmp_path, foreign(clip=7), "clip") == ["7"] * 6
    assert "1 video, such as 7" in capsys.readouterr().err
    assert len(set(videos(tmp_path, foreign(), "^.*$"))) == 6
    assert "each crop is a video of its own" in capsys.readouterr().err


def test_a_name_that_is_given_goes_before_what_samples_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = [*crops(), *(bare(one, f"cellar/{n}") for n, one in enumerate(crops(["x"])))]
    found = videos(tmp_path, mixed, "^(.*)/")
    assert found == ["attic"] * 3 + ["barn"] * 3 + ["cellar"] * 3
    assert "3 crops of 9" in capsys.readouterr().err
    assert set(videos(tmp_path, crops(), "^([a-z]+)_")) == {"attic", "barn"}
    assert set(videos(tmp_path, crops(), "hand")) == {"right"}
    with pytest.raises(HandclrError, match="sample cellar/0: .* its video, and neither does this$"):
        videos(tmp_path, mixed, "^x(.*)/")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("(", r"video_from: not a regular expression: missing \), unterminated subpattern"),
        ("^(.*)-", "video_from: found in no key, such as attic_00000000_r"),
        ("take", "video_from: no sample has this field in its JSON, such as attic_00000000_r"),
    ],
)
def test_names_of_no_use(word: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(HandclrError, match=f"^{message}"):
        videos(tmp_path, crops(), word)


@pytest.mark.slow
def test_pca_says_which_option_names_videos(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "hands.tar", foreign())
    error = error_line(run_cli("pca", shard, "--dim", 2), 1)
    assert error.startswith("--video-from: ") and "sample attic/f0: neither" in error
    output = tmp_path / "pose.npz"
    done = run_cli("pca", shard, "--dim", 2, "--video-from", "^(.*)/", "-o", output)
    assert done.returncode == 0 and b"warning: video names were given" in done.stderr
    arguments = json.loads(str(load_npz(output)["meta"]))["arguments"]
    assert arguments["video_from"] == "^(.*)/"


def test_a_video_is_named_by_the_json_or_the_key_or_not_at_all() -> None:
    ours, theirs = crop("attic"), bare(crop("attic"), "a/b")
    assert ours.video == "attic" and theirs.named_video is None
    assert bare(crop("attic"), "a/b", video="x").video == "x"
    assert bare(crop("attic"), "barn_00000000_r", video=None).video == "barn"
    with pytest.raises(HandclrError, match="sample a/b: neither a JSON member nor its key names"):
        _ = theirs.video


def test_intervals_need_the_video_of_each_sample(tmp_path: Path) -> None:
    samples = []
    for number in range(4):
        sample = labelled_sample(number)
        samples.append(bare(sample, f"clip{number // 2}/{number}", hand="right"))
    index = ShardIndex([str(write_shard(tmp_path / "x.tar", samples))])
    with pytest.raises(
        HandclrError, match=r"^resample_by: .* sample clip0/0 has no 'video' in its"
    ):
        read_labels(index, "video")
    expected = [b"clip0", b"clip0", b"clip1", b"clip1"]
    assert read_labels(index, "^(.*)/").units.tolist() == expected
    with pytest.raises(HandclrError, match=r"sample clip0/0 has a key without it; name another"):
        read_labels(index, "^(.*)-")
    with pytest.raises(UsageError, match="resample_by: not a regular expression"):
        read_labels(index, "(")
