"""handclr inspect: what is in shards, NPZ files, weights and runs; complete or not, sound
or not.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from labelled_helpers import write_labelled, write_pairs
from shard_helpers import (
    CLI,
    RECORD,
    cli_env,
    crop,
    crops,
    error_line,
    jpeg,
    python_tar,
    raw_tar,
    run_cli,
    tar_bytes,
    write_pose,
    write_shard,
)

from handclr_cli import console
from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.npz import as_keys, write_npz
from handclr_cli.contract.numbering import ranges
from handclr_cli.contract.provenance import Provenance, provenance
from handclr_cli.contract.sample import Sample, sample_key
from handclr_cli.contract.tar import END_OF_ARCHIVE, StreamCursor
from handclr_cli.contract.units import COUNTS, SKIPPED
from handclr_cli.inspection.arrays import describe_npz
from handclr_cli.inspection.census import Census, census, random_samples, scan
from handclr_cli.inspection.listing import WIDTH, listing
from handclr_cli.inspection.recognise import recognise
from handclr_cli.inspection.shardset import ShardSet, group_sets, repeated_keys, shared_keys
from handclr_cli.report.crops_page import crops_page

COUNTED = {"videos": 1, "frames": 9, "left": 1, "right": 2, "no hand": 6}


def unit(
    path: Path,
    samples: Iterable[Sample] = (),
    counts: dict[str, int] | None = None,
    skipped: Sequence[str] = (),
    record: Provenance = RECORD,
) -> Path:
    """A numbered shard that says at its end what became of its inputs."""
    tail = [(COUNTS, json.dumps(COUNTED if counts is None else counts).encode())]
    tail += [(SKIPPED, json.dumps(skipped).encode())] if skipped else []
    data = tar_bytes(samples, record).removesuffix(END_OF_ARCHIVE) + raw_tar(tail)
    path.write_bytes(data)
    return path


def job(folder: Path, there: Iterable[int], of: int) -> Path:
    """Some of the shards of a job."""
    folder.mkdir(exist_ok=True)
    for number in there:
        name = folder / f"crops-{number:06d}.tar"
        unit(name, [crop(f"v{number}")], {**COUNTED, "shards": of})
    return folder


def described(*paths: Path, skipped: bool = False) -> list[dict[str, Any]]:
    """The sets that some shards make."""
    sets = group_sets([one for path in paths for one in scan(str(path))])
    return [each.describe(skipped=skipped) for each in sets]


def only(items: list[dict[str, Any]]) -> dict[str, Any]:
    (item,) = items
    return item


# Counting one shard.


def test_a_shard_is_counted(tmp_path: Path) -> None:
    left = [crop("attic", 7, keypoints=False)]
    left[0].key = sample_key("attic", 7, "left")
    item = only(described(write_shard(tmp_path / "a.tar", [*crops(["attic", "barn"], 3), *left])))
    assert (item["samples"], item["videos"], item["files"], item["archives"]) == (7, 2, 1, 1)
    assert item["sides"] == {"left": 1, "right": 6, "unknown": 0}
    assert item["members"] == {"jpg": 7, "json": 7, "keypoints2d.npy": 6}
    assert (
        list(item["crop_sizes"]) == ["16x16"]
        and item["bytes"] == (tmp_path / "a.tar").stat().st_size
    )
    assert item["complete"] is None and item["sound"] and not item["warnings"]
    assert item["provenance"][0]["stages"][0]["arguments"] == {"fps": 1.0}


def test_a_stream_is_counted_as_its_file_is(tmp_path: Path) -> None:
    data = tar_bytes(crops()) + tar_bytes(crops(["cellar"]))
    (tmp_path / "both.tar").write_bytes(data)
    mapped, streamed = (
        scan(str(tmp_path / "both.tar")),
        census(StreamCursor(io.BytesIO(data)), "standard input"),
    )
    assert [one.keys.tolist() for one in mapped] == [one.keys.tolist() for one in streamed]
    assert [one.starts.tolist() for one in mapped] == [one.starts.tolist() for one in streamed]
    item = only([each.describe() for each in group_sets(streamed)])
    assert (item["files"], item["archives"], item["samples"], item["bytes"]) == (1, 2, 9, len(data))


def test_json_says_side_and_video_where_the_key_does_not() -> None:
    infos = [{"hand": "left", "video": "a"}, {"hand": "right", "video": "a"}, {"hand": "paw"}, {}]
    members = [(f"{n}.json", json.dumps(info).encode()) for n, info in enumerate(infos)] + [
        ("9.json", b"[}")
    ]
    (one,) = census(StreamCursor(io.BytesIO(raw_tar(members))), "x")
    item = ShardSet([one]).describe()
    assert item["sides"] == {"left": 1, "right": 1, "unknown": 3} and item["videos"] == 1


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_plain_webdataset_is_counted_by_extension(form: int, tmp_path: Path) -> None:
    names = [
        (f"{'train/' * 12}{'x' * 60}{n}.{suffix}", jpeg())
        for n in range(3)
        for suffix in ("JPG", "cls", "seg.png")
    ]
    (tmp_path / "plain.tar").write_bytes(python_tar([*names[:-1], ("README", b"words")], form))
    item = only(described(tmp_path / "plain.tar"))
    assert item["samples"] == 3 and item["members"] == {"jpg": 3, "cls": 3, "seg.png": 2}
    assert item["provenance"] == [] and item["sides"]["unknown"] == 3 and item["sound"]
    assert "hands" not in listing(item)


def test_an_archive_without_members_is_sound(tmp_path: Path) -> None:
    (tmp_path / "none.tar").write_bytes(END_OF_ARCHIVE)
    item = only(described(tmp_path / "none.tar"))
    assert item["samples"] == 0 and item["sound"]


def test_what_stands_before_the_damage_is_counted_and_drawn(tmp_path: Path) -> None:
    data = tar_bytes(crops())
    header = data.rindex(b"barn_00000002_r.jpg")
    spoilt = {
        "cut": (data[:header], "end-of-archive mark", 5, 4),
        "torn": (data[: header + 700], "ends in the middle of member barn_00000002_r.jpg", 5, 4),
        "rotten": (
            data[:header] + b"\xff" + data[header + 1 :],
            f"damaged tar header at byte {header}",
            5,
            4,
        ),
        "empty": (b"", "is empty", 0, 0),
        "words": (b"words " * 200, "not a tar archive", 0, 0),
        "dead": (data.removesuffix(END_OF_ARCHIVE) + data, "without its end mark", 6, 6),
        "twice": (
            raw_tar([("a.jpg", jpeg()), ("a.jpg", jpeg())]),
            "sample a has two members .jpg",
            1,
            0,
        ),
        "blank": (raw_tar([("a.jpg", b"")]), "sample a: its jpg is not a JPEG or PNG image", 1, 1),
    }
    for name, (bytes_, problem, samples, readable) in spoilt.items():
        path = tmp_path / f"{name}.tar"
        path.write_bytes(bytes_)
        item = only(described(path))
        assert not item["sound"] and item["damaged"][0]["name"] == str(path)
        assert problem in item["damaged"][0]["problems"][0], name
        assert item["samples"] == samples, name
        # The last sample before the damage may lack members, and cannot be read.
        assert item["damaged"][0]["samples"] == readable, name
        assert len(list(random_samples(scan(str(path)), 10, 0))) == readable, name
    assert "No such file" in scan(str(tmp_path / "gone.tar"))[0].problems[0]


# Sets of shards.


def test_a_job_is_complete_when_all_its_shards_are_there(tmp_path: Path) -> None:
    item = only(described(*sorted(job(tmp_path / "d", range(12), 12).iterdir())))
    assert item["complete"] and item["shards_of_job"] == 12 and item["missing"] == []
    assert item["name"] == str(tmp_path / "d" / "crops-{000000..000011}.tar")
    assert item["inputs"] == {"videos": 12, "frames": 108, "no hand": 72, "left": 12, "right": 24}


def test_missing_shards_are_named_as_ranges(tmp_path: Path) -> None:
    folder = job(tmp_path / "d", [0, 1, 4, 6, 9], 12)
    item = only(described(*sorted(folder.iterdir())))
    gone = [
        "crops-{000002..000003}",
        "crops-000005",
        "crops-{000007..000008}",
        "crops-{000010..000011}",
    ]
    assert item["complete"] is False and item["missing_count"] == 7
    assert item["missing"] == [str(folder / f"{name}.tar") for name in gone]
    assert item["sound"] and "no, 7 of 12 shards missing" in listing(item)


@pytest.mark.slow
def test_missing_shards_of_a_large_job_are_soon_named(tmp_path: Path) -> None:
    sources = [
        Census(str(tmp_path / f"x-{n:06d}.tar"), counts={"shards": 20_000})
        for n in range(0, 20_000, 2)
    ]
    begin = time.process_time()
    item = ShardSet(sources).describe()
    assert item["missing_count"] == 10_000 and item["missing"][1] == str(tmp_path / "x-000003.tar")
    assert time.process_time() - begin < 10


def test_shards_that_are_there_but_were_not_named_are_not_missing(tmp_path: Path) -> None:
    folder = job(tmp_path / "d", [0, 1, 2, 4], 5)
    item = only(described(folder / "crops-000001.tar"))
    assert item["missing"] == [str(folder / "crops-000003.tar")] and item["samples"] == 1


def test_footage_added_later_makes_the_job_longer(tmp_path: Path) -> None:
    job(tmp_path / "d", [0, 1], 2)
    item = only(described(*sorted(job(tmp_path / "d", [2], 3).iterdir())))
    assert item["complete"] and item["shards_of_job"] == 3 and not item["warnings"]


def test_how_the_inputs_were_cut_tells_how_many_shards_there_are(tmp_path: Path) -> None:
    record = {**RECORD, "unit": {"inputs": 4001, "each": 2000}}
    item = only(described(unit(tmp_path / "t-0.tar", crops(), {"left": 1}, record=record)))
    assert item["shards_of_job"] == 3 and item["missing"] == [str(tmp_path / "t-{1..2}.tar")]


@pytest.mark.parametrize("total", [-1, 10**15, "many", None, True])
def test_a_total_that_cannot_be_is_not_believed(total: object, tmp_path: Path) -> None:
    counts: dict[str, Any] = {"shards": total, "left": 1}
    record = {**RECORD, "unit": {"inputs": 9, "each": 0}}
    path = unit(tmp_path / "t-999999999999999.tar", crops(), counts, record=record)
    item = only(
        described(path, write_shard(tmp_path / "t-000000000000001.tar", crops(["x"]), record))
    )
    assert item["complete"] is None and item["shards_of_job"] is None and item["warnings"] == []


def test_provenance_of_any_kind_is_shown(tmp_path: Path) -> None:
    strange: Provenance = {
        "stage": [1],
        "arguments": 3,
        "history": ["x", {"stage": None}],
        "unit": 5,
        "inputs": {"a": 1},
    }
    strange |= {"model": "m", "seed": {}, "input_count": "many"}
    paths = [write_shard(tmp_path / "s-0.tar", crops()), tmp_path / "s-1.tar"]
    paths[1].write_bytes(
        raw_tar([("__handclr__", json.dumps(strange).encode()), ("a.jpg", jpeg())])
    )
    assert "made by" in listing(only(described(*paths))) and "made by" in listing(
        only(described(paths[1]))
    )


def test_units_in_a_stream_are_numbered_by_their_provenance(tmp_path: Path) -> None:
    data = b""
    for number in (0, 3):
        record = {**RECORD, "unit": {"number": number, "sha256": f"{number}"}}
        path = unit(tmp_path / "x.tar", [crop(f"v{number}")], {"shards": 4}, record=record)
        data += path.read_bytes()
    item = only(
        [
            each.describe()
            for each in group_sets(census(StreamCursor(io.BytesIO(data)), "standard input"))
        ]
    )
    assert item["archives"] == 2 and item["missing_count"] == 2 and not item["warnings"]


def test_gaps_in_the_numbers_of_a_set_that_says_nothing_are_a_warning(tmp_path: Path) -> None:
    paths = [write_shard(tmp_path / f"h-{n:02d}.tar", [crop(f"v{n}")]) for n in (0, 1, 4)]
    item = only(described(*paths))
    assert item["complete"] is None and item["warnings"] == [
        f"the numbers pass over {tmp_path}/h-{{02..03}}.tar"
    ]


def test_what_was_skipped_is_counted_by_reason_and_listed_on_request(tmp_path: Path) -> None:
    lines = ["a\x1b[2J b.mp4: damaged", "cäsar\udcff.mp4: no video stream"]
    counts = {
        **COUNTED,
        "damaged": 1,
        "no video stream": 1,
        "without labels": 5,
        "shards": 1,
        "no keypoints": 4,
    }
    path = unit(tmp_path / "c-0.tar", crops(), counts, lines)
    (each,) = group_sets(scan(str(path)))
    item = each.describe(["without labels"], skipped=True)
    assert item["skipped"] == {"damaged": 1, "no video stream": 1} and item["skipped_count"] == 2
    assert item["without_sample"] == {"without labels": 5} and item["inputs"]["no keypoints"] == 4
    assert item["skipped_lines"] == lines and "skipped_lines" not in each.describe()
    shown = listing(item)
    assert "a\\x1b[2J b.mp4: damaged" in shown and "\x1b" not in shown and "\udcff" not in shown


def test_shards_that_were_made_differently_are_a_warning(tmp_path: Path) -> None:
    paths = []
    for number, (fps, version) in enumerate([(1.0, "1"), (1.0, "1"), (2.0, "2")]):
        extract = {**provenance("extract", {"fps": fps}, [f"in-{number}"]), "version": version}
        record = provenance("keypoints", {"min_score": 0.5}, [f"c-{number}.tar"])
        paths.append(
            write_shard(tmp_path / f"h-{number}.tar", [crop(f"v{number}", origin=extract)], record)
        )
    item = only(described(*paths))
    assert [variant["shards"] for variant in item["provenance"]] == [2, 1]
    told = " ".join(item["warnings"])
    assert f"extract fps: 1.0 in 2 ({paths[0]}), 2.0 in 1 ({paths[2]})" in told
    assert 'extract version: "1" in 2' in told and "min_score" not in told and item["sound"]
    assert only(described(*paths[:2]))["warnings"] == []


def test_a_key_that_comes_twice_is_found_within_and_across_shards(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "h-0.tar", [*crops(["a"], 3), crop("a", 1)])
    second = write_shard(tmp_path / "h-1.tar", [crop("b"), crop("a", 2)])
    item = only(described(first, second))
    assert item["duplicate_count"] == 2 and not item["sound"]
    found = {one["key"]: one["in"] for one in item["duplicates"]}
    assert found == {"a_00000001_r": [str(first)] * 2, "a_00000002_r": [str(first), str(second)]}


def test_repeated_keys_are_those_of_a_plain_count() -> None:
    rng = np.random.default_rng(0)
    parts = [
        as_keys([f"k{value}" for value in rng.integers(0, 60, size)]) for size in (30, 0, 25, 1)
    ]
    plain: dict[bytes, list[int]] = {}
    for number, part in enumerate(parts):
        for key in part.tolist():
            plain.setdefault(key, []).append(number)
    assert repeated_keys(parts) == {key: where for key, where in plain.items() if len(where) > 1}
    assert repeated_keys([]) == repeated_keys(parts[1:2]) == {}


def test_data_sets_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    record = provenance("keypoints", {})
    for name in ("a", "b"):
        write_shard(tmp_path / f"{name}.tar", [crop(name)])
        write_shard(tmp_path / f"{name}-hands.tar", [crop(name)], record)
    for number in (0, 1):
        write_shard(tmp_path / f"n-{number}.tar", [crop(f"n{number}")], record)
    sets = group_sets([one for path in sorted(tmp_path.iterdir()) for one in scan(str(path))])
    assert [each.name.removeprefix(f"{tmp_path}/") for each in sets] == [
        "a-hands.tar and 1 more",
        "a.tar and 1 more",
        "n-{0..1}.tar",
    ]
    assert shared_keys(sets) == [{"in": [sets[0].name, sets[1].name], "count": 2}]


def test_numbers_become_brace_ranges() -> None:
    names = [
        "a-8.tar",
        "a-9.tar",
        "a-10.tar",
        "a-12.tar",
        "b-13.tar",
        "b-14.tar",
        "words.tar",
        "words.tar",
    ]
    assert ranges(names) == [
        "a-{8..10}.tar",
        "a-12.tar",
        "b-{13..14}.tar",
        "words.tar",
        "words.tar",
    ]
    assert ranges([]) == []


def test_temporary_files_of_the_set_are_named(tmp_path: Path) -> None:
    folder = job(tmp_path / "d", [0], 2)
    mine = folder / ".crops-000001.tar.tmp-123"
    for path in (mine, folder / ".other-000001.tar.tmp-9", folder / ".crops-000001.tar"):
        path.write_bytes(b"")
    assert only(described(folder / "crops-000000.tar"))["temporary"] == [str(mine)]


def test_random_samples_are_of_all_shards_and_repeatable(tmp_path: Path) -> None:
    counted = [
        one
        for n in range(5)
        for one in scan(str(write_shard(tmp_path / f"h-{n}.tar", crops([f"v{n}"], 8))))
    ]
    drawn = [[sample.key for sample in random_samples(counted, 12, seed)] for seed in (0, 0, 1)]
    assert (
        drawn[0] == drawn[1] != drawn[2]
        and len(set(drawn[0])) == 12
        and drawn[0] == sorted(drawn[0])
    )
    assert len(list(random_samples(counted, 1000, 0))) == 40 and not list(random_samples([], 5, 0))


def test_a_page_has_pictures_of_any_kind_and_names_what_is_none() -> None:
    png = cv2.imencode(".png", np.full((20, 50, 3), 200, np.uint8))[1].tobytes()
    good = [crop(), Sample("plain", {"png": png}), Sample("wide", {"jpg": png})]
    bad = [
        Sample("bad", {"jpg": b"words"}),
        Sample("none", {"cls": b"1"}),
        Sample("empty", {"jpg": b""}),
    ]
    failures: list[HandclrError] = []
    page = crops_page([*good, *bad], failures.append)
    assert page.shape == crops_page(good, failures.append).shape and page.dtype == np.uint8
    assert [str(error).split("sample ")[1] for error in failures] == [
        "bad: bad jpg",
        "none has no image",
        "empty: bad jpg",
    ]


# What paths stand for.


def kinds(path: object) -> list[tuple[str, str]]:
    return [(str(thing.kind), os.path.basename(thing.name)) for thing in recognise(str(path))]


def test_files_are_told_by_what_is_in_them(tmp_path: Path) -> None:
    shutil.copy(write_shard(tmp_path / "a.tar", crops()), tmp_path / "odd.bin")
    shutil.copy(write_pose(tmp_path / "p.npz", [0, 1]), tmp_path / "odd.dat")
    (tmp_path / "cut.tar").write_bytes(b"short")
    (tmp_path / "w.pth").write_bytes(b"")
    assert kinds(tmp_path / "odd.bin") == [("shards", "odd.bin")]
    assert kinds(tmp_path / "odd.dat") == [("arrays", "odd.dat")]
    assert kinds(tmp_path / "cut.tar") == [("shards", "cut.tar")]
    assert kinds(f"{tmp_path}/[ac]*.tar") == [("shards", "a.tar"), ("shards", "cut.tar")]
    (tmp_path / ".a.tar.tmp-3").write_bytes(b"")
    shards = [("shards", "a.tar"), ("shards", "cut.tar")]
    assert kinds(tmp_path) == [*shards, ("arrays", "p.npz"), ("weights", "w.pth")]
    for name, config in {
        "run": '{"stage": "pretrain"}',
        "theirs": '{"model": "x"}',
        "broken": "{",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
    assert kinds(tmp_path)[-2:] == [("run", "run"), ("weights", "w.pth")]
    (tmp_path / "broken" / "log.jsonl").touch()
    assert kinds(tmp_path / "broken") == [("run", "broken")]


def test_of_a_range_what_is_not_there_is_absent(tmp_path: Path) -> None:
    job(tmp_path, [1, 3], 4)
    found = kinds(f"{tmp_path}/crops-{{000001..000003}}.tar")
    assert found == [
        ("shards", "crops-000001.tar"),
        ("absent", "crops-000002.tar"),
        ("shards", "crops-000003.tar"),
    ]
    for pattern in ("gone-{0..3}.tar", "crops-{3..1}.tar", "gone.tar", "gone-*.tar"):
        with pytest.raises(UsageError, match="is there|counts down|no such file|nothing matches"):
            kinds(f"{tmp_path}/{pattern}")


def test_what_holds_nothing_known_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "only-begun"
    folder.mkdir()
    (folder / ".x-0.tar.tmp-7").write_bytes(b"")
    files = {
        "empty": b"",
        "words": b"words\n" * 300,
        "gz": b"\x1f\x8b" + bytes(600),
        "film": bytes(range(256)) * 4,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(HandclrError, match="is empty|neither shards"):
            kinds(tmp_path / name)
    with pytest.raises(
        HandclrError, match=r"no finished shards.*\.x-0\.tar\.tmp-7 is being written"
    ):
        kinds(folder)


# NPZ files.


def npz(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return describe_npz(file, str(path))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array)
    return buffer.getvalue()


def test_a_pose_file_is_described(tmp_path: Path) -> None:
    found = npz(write_pose(tmp_path / "p.npz", [0, 0, 1, 2]))
    assert (found["type"], found["poses"], found["videos"], found["dimensions"]) == (
        "pose",
        4,
        3,
        14,
    )
    assert sum(found["explained_variance"]) == pytest.approx(1, abs=1e-4) and found["sound"]
    assert found["arrays"]["embedding"] == {"dtype": "float32", "shape": [4, 14]}
    assert found["provenance"]["stage"] == "pca" and "100.0% of the variance" in listing(found)
    hnsw = {"hnsw_base": np.zeros((4, 8), np.uint8), "hnsw_links": np.zeros((0, 4), np.uint8)}
    hnsw["hnsw_levels"] = np.zeros(4, np.int32)
    assert npz(write_pose(tmp_path / "i.hnsw", [0, 0, 1, 2], **hnsw))["type"] == "index"


def test_pairs_are_described(tmp_path: Path) -> None:
    keys, rows = (
        [f"k{n}" for n in range(5)],
        np.array([[1, 2], [0, -1], [-1, -1], [4, 0], [3, 1]], np.int32),
    )
    distance = np.where(rows < 0, np.inf, np.arange(10).reshape(5, 2)).astype(np.float32)
    write_npz(
        str(tmp_path / "p.npz"),
        "pairs",
        {"key": as_keys(keys), "positive": rows, "distance": distance},
        RECORD,
    )
    found = npz(tmp_path / "p.npz")
    assert (found["queries"], found["targets"], found["pairs"], found["without_positive"]) == (
        5,
        5,
        7,
        1,
    )
    assert found["distance"]["p50"] == np.median([0, 2, 6, 8]) and found["distance"]["p100"] == 8
    assert npz(write_pairs(tmp_path / "none.npz", keys, [-1] * 5))["distance"] == {}


def test_predictions_are_described(tmp_path: Path) -> None:
    error = np.arange(42, dtype=np.float32).reshape(2, 21) ** 2
    points = np.zeros((2, 21, 3), np.float32)
    valid = np.ones((2, 21), np.uint8)
    valid[0, 0] = 0
    arrays = {
        "key": as_keys(["a", "b"]),
        "keypoints3d": points,
        "truth3d": points,
        "error_mm": error,
        "valid": valid,
    }
    write_npz(str(tmp_path / "p.npz"), "predictions", arrays, RECORD)
    found = npz(tmp_path / "p.npz")
    assert (found["type"], found["samples"], found["with_truth"]) == ("predictions", 2, True)
    # As evaluate has it: the mean of each joint, then over joints.
    first, second = error.astype(float)
    joints = [second[0], *((first + second) / 2)[1:]]
    assert found["error_mm"] == pytest.approx(np.mean(joints), abs=1e-4)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("sprung",)


@pytest.mark.slow
def test_nothing_in_an_npz_file_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trap = np.array([Trap()], dtype=object)
    np.savez(tmp_path / "t.npz", key=trap, positive=trap, meta=trap, other=np.arange(3))
    found = npz(tmp_path / "t.npz")
    assert found["arrays"]["key"]["dtype"] == "object (pickled, not read)" and not found["sound"]
    assert (
        found["arrays"]["other"] == {"dtype": "int64", "shape": [3]} and found["provenance"] is None
    )
    (tmp_path / "t.pt").write_bytes(pickle.dumps({"state": Trap()}))
    done = run_cli("inspect", "t.npz", "t.pt", cwd=tmp_path)
    assert (
        done.returncode == 3
        and b"t.pt: not a checkpoint" in done.stderr
        and not Path("sprung").exists()
    )


def test_arrays_that_are_not_as_declared_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", key=np.array([b"a", b"b"]), positive=np.zeros((3, 1), np.int64))
    problems = npz(tmp_path / "p.npz")["problems"]
    assert problems[0] == "array 'positive' should be int32 ('N', 'K'), is int64 (3, 1)"
    assert problems[1] == "no array 'distance'"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i4", "fortran_order": False, "shape": (2, 10**13)}
    )
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("key.npy", npy(np.array([b"a", b"b"])))
        archive.writestr("positive.npy", header.getvalue() + bytes(100))
        archive.writestr("distance.npy", header.getvalue().replace(b"<i4", b"<f4") + bytes(100))
    assert npz(tmp_path / "huge.npz")["problems"] == [
        "its arrays are not of the size that they say"
    ]
    np.savez(tmp_path / "x.npz", anything=np.zeros(2))
    assert npz(tmp_path / "x.npz")["type"] == "arrays" and npz(tmp_path / "x.npz")["sound"]


def test_a_damaged_npz_file_is_told_from_a_whole_one(tmp_path: Path) -> None:
    path = write_pose(tmp_path / "p.npz", [0] * 200)
    data = bytearray(path.read_bytes())
    data[data.index(b"embedding.npy") + 1000] ^= 1
    path.write_bytes(data)
    assert npz(path)["problems"] == ["array 'embedding' is damaged"]
    path.write_bytes(data[:5000])
    with pytest.raises(HandclrError, match="not an NPZ file, or damaged"):
        npz(path)


# Weights and runs.


@pytest.mark.slow
def test_weights_and_runs_are_described(tmp_path: Path) -> None:
    import torch

    from handclr_cli.inspection.checkpoints import describe_checkpoint, describe_run
    from handclr_cli.learning.encoder import Encoder
    from handclr_cli.learning.pose import PoseNet
    from handclr_cli.learning.posemodel import MeanPose, save_payload

    run = tmp_path / "run"
    run.mkdir()
    encoder = Encoder("resnet18")
    network = PoseNet(encoder, head="regress")
    torch.save(encoder.state_dict(), run / "encoder.pt")
    torch.save(
        save_payload(network, 64, MeanPose(np.zeros((21, 3), np.float32), 0.09)), run / "model.pt"
    )
    torch.save({"step": 40, "model": network.state_dict(), "optimizer": {}}, run / "last.pt")
    torch.save({"a": {"b": [torch.zeros(3, dtype=torch.float16)]}}, tmp_path / "other.pt")
    plain = sum(parameter.numel() for parameter in encoder.parameters())
    found = describe_checkpoint(run / "encoder.pt")
    assert (found["type"], found["arch"], found["parameters"]) == ("encoder", "resnet18", plain)
    assert found["tensors"] == len(encoder.state_dict())
    other = describe_checkpoint(tmp_path / "other.pt")
    assert (other["type"], other["arch"], other["tensors"], other["dtypes"]) == (
        "tensors",
        None,
        1,
        ["float16"],
    )

    config = {
        **provenance("pretrain", {"batch": 8, "epochs": 5}, seed=0),
        "data": {"rows": 70, "samples": 90},
    }
    (run / "config.json").write_text(json.dumps(config))
    records = [{"step": 39, "loss": 2.0}, {"step": 40, "probe": 0.2}, {"step": 40, "loss": 1.5}]
    (run / "log.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records) + '{"step": 4'
    )
    assert_is_a_whole_run(describe_run(run), records)
    cut = {**config, "arguments": {"batch": 99, "epochs": 5}, "recipe": {"batch": 8}}
    (run / "config.json").write_text(json.dumps(cut))
    assert_is_a_whole_run(describe_run(run), records)

    torch.save({"step": 16, "model": network.state_dict(), "optimizer": {}}, run / "last.pt")
    (run / "model.pt").write_bytes(b"PK words")
    item = describe_run(run)
    assert not item["complete"] and item["steps"] == 16
    assert not item["sound"] and "model.pt" in item["problems"][0]
    (run / "config.json").write_text("[1")
    with pytest.raises(HandclrError, match="not the configuration of a run"):
        describe_run(run)


def assert_is_a_whole_run(item: dict[str, Any], records: list[dict[str, Any]]) -> None:
    """A run of 40 steps with all its weights, the last two of its records by kind."""
    assert item["complete"] and item["sound"] and (item["steps"], item["steps_planned"]) == (40, 40)
    assert item["last"] == records[2] and item["measured"] == records[1]
    assert [each["type"] for each in item["weights"]] == ["encoder", "pose model", "training state"]
    assert item["weights"][1]["head"] == "regress" and item["weights"][2]["step"] == 40
    shown = listing(item)
    assert "40 of 40" in shown and "loss 1.5" in shown and "resnet18, regress, 64 px" in shown


# The command.


@pytest.mark.slow
def test_text_for_people_and_json_for_scripts(tmp_path: Path) -> None:
    folder = job(tmp_path / "crops", [0, 2], 3)
    done = run_cli("inspect", folder)
    assert done.returncode == 3 and b"\x1b" not in done.stdout
    assert f"no, 1 of 3 shards missing: {folder}/crops-000001.tar" in " ".join(
        done.stdout.decode().split()
    )
    assert (
        done.stderr.decode() == f"inspect: {folder}/crops-{{000000..000002}}.tar: 1 shard missing\n"
    )
    as_json = run_cli("inspect", "-q", "--json", folder)
    assert as_json.returncode == 3 and as_json.stderr == b""
    report = json.loads(as_json.stdout)
    assert report["ok"] is False and report["failures"] == [] and report["shared_keys"] == []
    assert report["items"][0]["missing"] == [f"{folder}/crops-000001.tar"]
    job(folder, [1], 3)
    done = run_cli(
        "inspect", f"{folder}/crops-{{000000..000002}}.tar", write_pose(tmp_path / "p.npz", [0, 1])
    )
    assert (
        done.returncode == 0 and done.stderr == b"inspect: nothing is missing, skipped or damaged\n"
    )


@pytest.mark.slow
def test_the_exit_code_tells_what_is_wrong(tmp_path: Path) -> None:
    good = write_shard(tmp_path / "good.tar", crops())
    (tmp_path / "cut.tar").write_bytes(good.read_bytes()[:-700])
    (tmp_path / "words.txt").write_text("words")
    for name, data in {
        "empty.tar": b"",
        "not.tar": b"words" * 300,
        "not.npz": b"words",
        "not.pt": b"words",
    }.items():
        (tmp_path / name).write_bytes(data)
        message = error_line(run_cli("inspect", tmp_path / name), 1)
        assert message.startswith(f"{tmp_path / name}: ") and not message.endswith(": ")
    assert run_cli("inspect", good).returncode == 0
    assert run_cli("inspect", tmp_path / "cut.tar").returncode == 3
    done = run_cli("inspect", tmp_path / "cut.tar", "--sheet", tmp_path / "sheet.png")
    assert done.returncode == 3 and b"5 crops drawn" in done.stderr
    assert done.stderr.endswith(b"cut.tar: damaged\n") and b"(5 samples can be" in done.stdout
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None
    done = run_cli("inspect", good, tmp_path / "words.txt")
    assert done.returncode == 3 and b"warning" in done.stderr and b"samples    6" in done.stdout
    assert "neither shards" in error_line(run_cli("inspect", tmp_path / "words.txt"), 1)
    assert error_line(run_cli("inspect", tmp_path / "gone.tar"), 2).endswith(
        "no such file or folder"
    )
    skipped = unit(
        tmp_path / "s-0.tar",
        crops(),
        {"right": 6, "with a damaged image": 1, "shards": 1},
        ["a: b"],
    )
    done = run_cli("inspect", "--skipped", skipped)
    assert done.returncode == 3 and b"\n  a: b\n" in done.stdout
    harmless = unit(tmp_path / "u-0.tar", crops(), {"right": 6, "without labels": 1, "shards": 1})
    assert run_cli("inspect", harmless).returncode == 0


@pytest.mark.slow
def test_pipes_are_read_and_drawn(tmp_path: Path) -> None:
    labelled = write_labelled(tmp_path / "l.tar", 6).read_bytes()
    sheet = tmp_path / "sheet.png"
    for arguments in (("inspect",), ("inspect", "-", "--sheet", sheet, "--samples", "4")):
        done = run_cli(*arguments, stdin=labelled)
        assert done.returncode == 0 and done.stdout.startswith(b"standard input\n  shards     1, ")
        assert b"keypoints3d.npy" in done.stdout
    assert cv2.imread(str(sheet)).shape[1] > 2 * 128
    done = run_cli("inspect", stdin=write_pose(tmp_path / "p.npz", [0]).read_bytes())
    assert done.returncode == 0 and b"kind       pose" in done.stdout
    assert error_line(run_cli("inspect", stdin=b""), 1).startswith("standard input: is empty")
    assert error_line(run_cli("inspect", stdin=b"words" * 300), 1).startswith(
        "standard input: not a tar"
    )
    assert "only once" in error_line(run_cli("inspect", "-", "-"), 2)
    assert (
        "no shards with samples"
        in run_cli("inspect", "--sheet", sheet, tmp_path / "p.npz").stderr.decode()
    )


@pytest.mark.slow
def test_a_named_pipe_and_a_closed_one(tmp_path: Path) -> None:
    write_pose(tmp_path / "p.npz", [0, 1])
    job(tmp_path / "d", range(30), 30)
    script = (
        '$H inspect -q <(cat p.npz) | grep -c "kind .*pose"; $H inspect --json d | head -c 1; exit'
        " ${PIPESTATUS[0]}"
    )
    command = ["bash", "-c", f'H="{" ".join(CLI)}"; {script}']
    done = subprocess.run(command, capture_output=True, env=cli_env(), cwd=tmp_path)
    assert done.stdout == b"1\n{" and done.returncode in (0, 141), done.stderr


def test_every_line_fits_and_nothing_reaches_the_terminal_unseen(tmp_path: Path) -> None:
    record = provenance(
        "extract", {f"option_{n}": "value" for n in range(30)}, ["\x1b]0;owned\x07.mp4"]
    )
    path = write_shard(
        tmp_path / "a.tar", [*crops(), Sample("\x1b[31mred", {"jpg": jpeg()})], record
    )
    lines = listing(only(described(path))).splitlines()
    assert max(map(len, lines[1:])) <= WIDTH and "\\x1b]0;owned\\x07.mp4" in "\n".join(lines)
    assert console.printable("ü\n\u202e\udc80x") == "ü\\n\\u202e\\udc80x"


@pytest.mark.slow
def test_many_shards_are_counted_alike_by_any_number_of_processes(tmp_path: Path) -> None:
    folder = job(tmp_path / "d", range(40), 41)
    (folder / "crops-000007.tar").write_bytes(b"")
    outputs = [run_cli("inspect", "--json", "--workers", str(count), folder) for count in (0, 2)]
    assert (
        outputs[0].stdout == outputs[1].stdout
        and outputs[0].returncode == outputs[1].returncode == 3
    )
    assert [one["name"] for one in json.loads(outputs[0].stdout)["items"][0]["damaged"]] == [
        f"{folder}/crops-000007.tar"
    ]
