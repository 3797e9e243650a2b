"""Shards as streams: ours, WebDataset's and foreign ones; provenance; output that is complete or
not there.
"""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path

import pytest
import webdataset
from shard_helpers import RECORD, crop, crops, jpeg, python_tar, raw_tar, tar_bytes, write_shard

from handclr_cli.contract.errors import HandclrError, TruncatedError, UsageError
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import ShardOutput, ShardWriter, group, read_samples
from handclr_cli.contract.tar import BLOCK, END_OF_ARCHIVE, StreamCursor, walk

PCA_LIKE = provenance("keypoints", {"min_score": 0.5})


def read(data: bytes) -> list[Sample]:
    return list(group(StreamCursor(io.BytesIO(data)), "test.tar"))


def plain(samples: list[Sample]) -> list[tuple[str, dict[str, bytes]]]:
    return [
        (sample.key, {suffix: bytes(data) for suffix, data in sample.members.items()})
        for sample in samples
    ]


def member_list(data: bytes) -> list[tuple[str, bytes]]:
    return [
        (member.name, bytes(member.data))
        for member in walk(StreamCursor(io.BytesIO(data)), "test.tar")
    ]


def passed_through(data: bytes) -> bytes:
    """What a filter that changes nothing writes."""
    return tar_bytes(read(data), PCA_LIKE)


# Reading and writing


def test_round_trip() -> None:
    samples = crops()
    found = read(tar_bytes(samples))
    assert plain(found) == plain([Sample(s.key, dict(sorted(s.members.items()))) for s in samples])
    assert all(sample.origin == RECORD for sample in found)
    assert found[0].image.shape == (16, 16, 3)
    assert found[0].info["video"] == "attic"
    assert found[0].keypoints2d.shape == (21, 2)


def test_webdataset_reads_what_we_write(tmp_path: Path) -> None:
    samples = crops(members={"notes.txt": b"free text"})
    # Two origins, so that __history__ is in the stream as well.
    samples[3:] = [Sample(s.key, s.members, {"stage": "other"}) for s in samples[3:]]
    path = write_shard(tmp_path / "ours.tar", samples)
    names = [name for name, _ in member_list(path.read_bytes())]
    assert names[0] == "__handclr__" and "__history__" in names
    found = {
        sample["__key__"]: {
            suffix: data for suffix, data in sample.items() if not suffix.startswith("__")
        }
        for sample in webdataset.WebDataset(str(path), shardshuffle=False)
    }
    assert list(found) == [sample.key for sample in samples]
    assert found == dict(plain(samples))


def test_we_read_what_webdataset_writes(tmp_path: Path) -> None:
    path = tmp_path / "theirs.tar"
    samples = crops()
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write({"__key__": sample.key, **sample.members})
    assert sorted(plain(read(path.read_bytes()))) == sorted(plain(samples))
    with webdataset.ShardWriter(f"{tmp_path}/set-%06d.tar", maxcount=4, verbose=False) as shards:
        for sample in samples:
            shards.write({"__key__": sample.key, **sample.members})
    found = list(read_samples([f"{tmp_path}/set-000000.tar", f"{tmp_path}/set-000001.tar"]))
    assert plain(found) == plain(read(path.read_bytes()))
    assert found[0].keypoints2d.shape == (21, 2)
    assert found[0].origin is None


def test_webdataset_and_we_agree_on_foreign_names(tmp_path: Path) -> None:
    names = [
        "a.jpg",
        "a.seg.png",
        "set/b.jpg",
        "set.v1/c.JPG",
        "set.v1/c.cls",
        "./d.json",
        "README",
        "__x__",
    ]
    path = tmp_path / "foreign.tar"
    path.write_bytes(raw_tar([(name, name.encode()) for name in names]))
    theirs = [
        (
            sample["__key__"],
            {suffix: data for suffix, data in sample.items() if not suffix.startswith("__")},
        )
        for sample in webdataset.WebDataset(str(path), shardshuffle=False)
    ]
    found = plain(read(path.read_bytes()))
    assert found == theirs
    assert found[0] == ("a", {"jpg": b"a.jpg", "seg.png": b"a.seg.png"})


def test_unknown_members_pass_through_unchanged_and_in_order() -> None:
    known = crop(members={"depth.exr": b"\0\xff" * 300, "zz": b"", "a.b.c": b"1"})
    foreign = Sample("lone", {"flac": b"sound", "jpg": b"not even an image"})
    data = tar_bytes([foreign, known, crop(frame=1)])
    again = passed_through(data)
    assert plain(read(again)) == plain(read(data))
    assert [name for name, _ in member_list(again)] == [name for name, _ in member_list(data)]


def test_a_picture_nobody_touched_is_not_encoded_again() -> None:
    sample = read(tar_bytes([crop()]))[0]
    assert sample.image is sample.image  # decoded, and kept
    assert member_list(tar_bytes([sample]))[1] == (f"{sample.key}.jpg", jpeg())


def test_two_members_of_one_name() -> None:
    with pytest.raises(HandclrError, match=r"sample a has two members \.jpg"):
        read(raw_tar([("a.jpg", b"1"), ("a.jpg", b"2")]))


def test_samples_never_span_archives() -> None:
    data = raw_tar([("a.jpg", b"1")]) + raw_tar([("a.json", b"{}")])
    assert [sorted(sample.members) for sample in read(data)] == [["jpg"], ["json"]]


def test_a_field_that_is_not_there_names_the_sample() -> None:
    sample = read(tar_bytes([crop(keypoints=False)]))[0]
    with pytest.raises(
        HandclrError, match=r"test\.tar: sample kitchen_00000000_r has no keypoints2d\.npy"
    ):
        _ = sample.keypoints2d


def test_a_file_that_is_gone() -> None:
    with pytest.raises(HandclrError, match=r"cannot read nowhere\.tar: No such file"):
        list(read_samples(["nowhere.tar"]))


def test_pipe_sources(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.tar", crops())
    assert len(list(read_samples([f"pipe:cat {path}"]))) == 6
    with pytest.raises(HandclrError, match=r"^cannot read pipe:cat .*exit 3"):
        list(read_samples([f"pipe:cat {path}; exit 3"]))
    with pytest.raises(HandclrError):
        list(read_samples([f"pipe:head -c 2000 {path}"]))


# Provenance


def test_provenance_is_the_first_member_and_history_grows() -> None:
    first = tar_bytes(crops())
    name, text = member_list(first)[0]
    assert name == "__handclr__"
    assert json.loads(text) == {**RECORD, "history": []}
    second = passed_through(first)
    third = tar_bytes(read(second), provenance("another", {}))
    record = json.loads(member_list(third)[0][1])
    assert record["stage"] == "another"
    assert [past["stage"] for past in record["history"]] == ["extract", "keypoints"]
    assert all("history" not in past for past in record["history"])
    assert [name for name, _ in member_list(third)].count("__handclr__") == 1


def test_a_change_of_origin_is_noted() -> None:
    other = provenance("extract", {"fps": 2.0}, ["more"])
    data = (
        tar_bytes(crops(["attic"])) + tar_bytes(crops(["barn"]), other) + raw_tar([("c.jpg", b"1")])
    )
    again = passed_through(data)
    notes = [(name, json.loads(text)) for name, text in member_list(again) if name.startswith("__")]
    assert [name for name, _ in notes] == ["__handclr__", "__history__", "__history__"]
    assert [[past["arguments"] for past in note["history"]] for _, note in notes] == [
        [{"fps": 1.0}],
        [{"fps": 2.0}],
        [],
    ]
    # Each sample knows its own past after another pass.
    origins = [sample.origin["history"] for sample in read(again) if sample.origin]
    assert [[past["arguments"] for past in history] for history in origins[::3]] == [
        [{"fps": 1.0}],
        [{"fps": 2.0}],
        [],
    ]
    assert len(member_list(passed_through(again))) == len(member_list(again))


def test_equal_origins_are_noted_once() -> None:
    data = tar_bytes(crops(["attic"])) + tar_bytes(crops(["barn"]))
    assert [name for name, _ in member_list(passed_through(data)) if name.startswith("__")] == [
        "__handclr__"
    ]


def test_damaged_provenance_does_not_stop_anybody() -> None:
    data = raw_tar([("__handclr__", b"\xff not json"), ("a.jpg", b"1")])
    assert read(data)[0].origin is None
    assert json.loads(member_list(passed_through(data))[0][1])["history"] == []


def test_provenance_in_an_archive_that_was_packed_anew() -> None:
    packed = raw_tar([(f"./{name}", data) for name, data in member_list(tar_bytes(crops()))])
    first = read(packed)[0]
    assert first.origin == RECORD and first.key.startswith("./")
    last = [*member_list(tar_bytes(crops()))[1:], member_list(tar_bytes(crops()))[0]]
    with pytest.raises(TruncatedError, match="or was packed with __handclr__ not first"):
        read(raw_tar(last))


def test_an_archive_that_starts_inside_another() -> None:
    cut = tar_bytes(crops())[: -len(END_OF_ARCHIVE)]
    with pytest.raises(TruncatedError, match="an archive ends without its end mark"):
        read(cut + tar_bytes(crops()))


# Output


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(path: Path, samples: list[Sample], **options: object) -> ShardOutput:
    with ShardOutput(str(path), RECORD, **options) as out:  # type: ignore[arg-type]
        for sample in samples:
            out.write(sample)
    return out


def test_one_file(tmp_path: Path) -> None:
    out = fill(tmp_path / "x.tar", crops())
    assert (out.samples, out.shards) == (6, 1)
    assert names_in(tmp_path) == ["x.tar"]
    assert (tmp_path / "x.tar").read_bytes() == tar_bytes(crops())


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        fill(tmp_path / folder / "x-%03d.tar", crops(), shard_size=4)
    assert names_in(tmp_path / "a") == ["x-000.tar", "x-001.tar"]
    for name in names_in(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_empty_output_is_a_valid_tar(tmp_path: Path) -> None:
    fill(tmp_path / "x.tar", [])
    data = (tmp_path / "x.tar").read_bytes()
    assert read(data) == []
    assert [name for name, _ in member_list(data)] == ["__handclr__"]
    assert (
        list(webdataset.WebDataset(str(tmp_path / "x.tar"), shardshuffle=False, empty_check=False))
        == []
    )
    fill(tmp_path / "y-%d.tar", [])
    assert names_in(tmp_path) == ["x.tar", "y-0.tar"]


def test_a_producer_that_raises_leaves_no_end_mark() -> None:
    buffer = io.BytesIO()
    writer = ShardWriter(buffer, RECORD)
    writer.write(crop())
    with pytest.raises(TruncatedError):
        read(buffer.getvalue())
    writer.close()
    assert len(read(buffer.getvalue())) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError])
def test_nothing_under_a_final_name_on_an_exception(
    tmp_path: Path, error: type[BaseException]
) -> None:
    older = b"\0" * 2048
    (tmp_path / "x.tar").write_bytes(older)
    with pytest.raises((error, HandclrError)), ShardOutput(str(tmp_path / "x.tar"), RECORD) as out:
        out.write(crop())
        assert (tmp_path / "x.tar").read_bytes() == older
        raise error
    assert names_in(tmp_path) == ["x.tar"]
    assert (tmp_path / "x.tar").read_bytes() == older


def test_standard_output_has_no_end_mark_after_an_exception(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    with pytest.raises(ValueError), ShardOutput("-", RECORD) as out:
        out.write(crop())
        raise ValueError
    written = capsysbinary.readouterr().out
    assert written and not written.endswith(END_OF_ARCHIVE) and len(written) % BLOCK == 0


@pytest.mark.parametrize(
    ("count", "sizes"), [(6, [4, 2]), (8, [4, 4]), (4, [4]), (0, [0]), (9, [4, 4, 1])]
)
def test_numbered_shards(tmp_path: Path, count: int, sizes: list[int]) -> None:
    samples = crops(["a"], frames=count)
    out = fill(tmp_path / "crops-%06d.tar", samples, shard_size=4)
    assert (out.samples, out.shards) == (count, len(sizes))
    assert names_in(tmp_path) == [f"crops-{n:06d}.tar" for n in range(len(sizes))]
    shards = [read((tmp_path / name).read_bytes()) for name in names_in(tmp_path)]
    assert [len(shard) for shard in shards] == sizes
    assert [sample.key for shard in shards for sample in shard] == [
        sample.key for sample in samples
    ]
    assert all(sample.origin == RECORD for shard in shards for sample in shard)


def test_numbered_shards_complete_before_an_exception_stay(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError),
        ShardOutput(str(tmp_path / "x-%d.tar"), RECORD, shard_size=2) as out,
    ):
        for sample in crops(["a"], frames=3):
            out.write(sample)
        raise ValueError
    assert names_in(tmp_path) == ["x-0.tar"]
    assert len(read((tmp_path / "x-0.tar").read_bytes())) == 2


def test_older_shards_are_refused_then_replaced(tmp_path: Path) -> None:
    pattern = tmp_path / "x-%06d.tar"
    fill(pattern, crops(), shard_size=1)
    before = names_in(tmp_path)
    assert len(before) == 6
    with pytest.raises(UsageError, match=r"x-000000\.tar exists; .* overwrite"):
        fill(pattern, crops(), shard_size=4)
    with pytest.raises(ValueError), ShardOutput(str(pattern), RECORD, 4, overwrite=True) as out:
        out.write(crop())
        raise ValueError
    assert names_in(tmp_path) == before
    fill(pattern, crops(), shard_size=4, overwrite=True)
    assert names_in(tmp_path) == ["x-000000.tar", "x-000001.tar"]


def test_overwrite_leaves_other_files_alone(tmp_path: Path) -> None:
    others = ["x-best.tar", "x-000000.tar.bak", "x-eval-000000.tar"]
    for name in others:
        (tmp_path / name).write_bytes(b"precious")
    fill(tmp_path / "x-%06d.tar", crops())
    fill(tmp_path / "x-%06d.tar", crops(), overwrite=True)
    assert names_in(tmp_path) == sorted([*others, "x-000000.tar"])


@pytest.mark.parametrize("name", ["x-%.tar", "x-%d-%d.tar", "x-%q.tar", "100%%.tar"])
def test_a_pattern_that_is_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"crops-%06d\.tar"):
        ShardOutput(str(tmp_path / name), RECORD)


def test_devices_stay_devices(tmp_path: Path) -> None:
    fill(Path("/dev/null"), crops())
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    (tmp_path / "null").symlink_to("/dev/null")
    fill(tmp_path / "null", crops())
    assert (tmp_path / "null").is_symlink()


def test_python_tars_group_like_ours() -> None:
    pairs = [
        (f"{sample.key}.{suffix}", bytes(data))
        for sample in crops()
        for suffix, data in sample.members.items()
    ]
    assert plain(read(python_tar(pairs, 2, mtime=1.5))) == plain(crops())
