"""Units of work: numbered shards of fixed slices, skipped when they are there, never mixed with
others.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import ShardOutput, read_samples
from handclr_cli.contract.units import Unit, Units, even_parts, one_part

ARGUMENTS = {"split": "train", "min_score": 0.5}


def record(**changed: Any) -> dict[str, Any]:
    return provenance("test", {**ARGUMENTS, **changed}, ["set"])


def units_of(
    folder: Path, count: int = 7, size: int = 3, overwrite: bool = False, **changed: Any
) -> Units:
    return Units(str(folder / "x-%03d.tar"), record(**changed), even_parts(count, size), overwrite)


def make(units: Units, unit: Unit) -> None:
    with units.write(unit) as writer:
        for row in unit.rows:
            writer.counts["even" if row % 2 == 0 else "odd"] += 1
            if row % 2 == 0:
                writer.write(Sample(f"row{row:08d}", {"json": b"{}"}))


def work(units: Units) -> int:
    todo = units.missing()
    for unit in todo:
        make(units, unit)
    return len(todo)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_unit_is_a_fixed_slice_with_a_number(tmp_path: Path) -> None:
    units = units_of(tmp_path)
    assert [(Path(unit.path).name, unit.rows) for unit in units.units] == [
        ("x-000.tar", range(0, 3)),
        ("x-001.tar", range(3, 6)),
        ("x-002.tar", range(6, 7)),
    ]
    assert work(units) == 3
    keys = [
        sample.key for name in files(tmp_path) for sample in read_samples([str(tmp_path / name)])
    ]
    assert keys == [f"row{row:08d}" for row in (0, 2, 4, 6)]


def test_what_is_there_is_skipped_and_the_rest_has_the_same_bytes(tmp_path: Path) -> None:
    work(units_of(tmp_path))
    before = files(tmp_path)
    (tmp_path / "x-001.tar").unlink()
    again = units_of(tmp_path)
    assert [unit.number for unit in again.missing()] == [1]
    assert work(again) == 1 and files(tmp_path) == before
    assert work(units_of(tmp_path)) == 0


def test_a_shard_is_known_however_its_folder_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(units_of(tmp_path))
    monkeypatch.chdir(tmp_path)
    for pattern in (
        f"{tmp_path}//x-%03d.tar",
        "./x-%03d.tar",
        "x-%03d.tar",
        "../" + tmp_path.name + "/x-%03d.tar",
    ):
        assert Units(pattern, record(), even_parts(7, 3)).missing() == []
    (tmp_path / "x-7.tar").write_bytes(b"another's")
    assert units_of(tmp_path).missing() == []


def test_parts_make_the_whole(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    work(units_of(tmp_path / "whole"))
    for part in (slice(1, 3), slice(0, 1)):
        units = units_of(tmp_path / "parts")
        for unit in units.missing(part):
            make(units, unit)
    assert files(tmp_path / "whole") == files(tmp_path / "parts")


def test_the_counts_of_a_finished_unit_are_kept_and_no_reader_minds(tmp_path: Path) -> None:
    work(units_of(tmp_path))
    units = units_of(tmp_path)
    assert [dict(units.counts(unit)) for unit in units.units] == [
        {"even": 2, "odd": 1},
        {"even": 1, "odd": 2},
        {"even": 1},
    ]
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "x-000.tar").read_bytes())) as archive:
        names = archive.getnames()
    assert names[0] == "__handclr__" and names[-1] == "__counts__"


def test_a_unit_without_samples_is_done_too(tmp_path: Path) -> None:
    units = units_of(tmp_path, count=1)
    with units.write(units.units[0]) as writer:
        writer.counts["odd"] += 1
    again = units_of(tmp_path, count=1)
    assert again.missing() == [] and again.counts(again.units[0]) == {"odd": 1}
    assert list(read_samples([again.units[0].path])) == []


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"split": "eval"}, "split train"),
        ({"min_score": 0.4}, "min_score 0.5"),
        ({"fps": 2}, r"fps \(not set\)"),
        ({"count": 8}, 'unit {"inputs": 7, "each": 3}'),
        ({"size": 4}, 'unit {"inputs": 7, "each": 3}'),
    ],
)
def test_a_shard_made_with_other_arguments_is_an_error_that_names_them(
    other: dict[str, Any], words: str, tmp_path: Path
) -> None:
    work(units_of(tmp_path))
    before = files(tmp_path)
    with pytest.raises(
        UsageError, match=rf"x-000\.tar: made with {words}; remove the old shards"
    ) as caught:
        units_of(tmp_path, **other)
    assert "\n" not in str(caught.value) and files(tmp_path) == before


def test_overwrite_replaces_others_when_the_first_new_shard_is_complete(tmp_path: Path) -> None:
    work(units_of(tmp_path))
    units = units_of(tmp_path, count=3, split="eval", overwrite=True)
    assert len(files(tmp_path)) == 3
    with pytest.raises(ValueError), units.write(units.units[0]):
        raise ValueError
    assert len(files(tmp_path)) == 3
    assert work(units) == 1 and list(files(tmp_path)) == ["x-000.tar"]
    # The same command again goes on, rather than beginning anew.
    assert work(units_of(tmp_path, count=3, split="eval", overwrite=True)) == 0


def test_an_interrupted_unit_leaves_nothing(tmp_path: Path) -> None:
    units = units_of(tmp_path)
    with pytest.raises(KeyboardInterrupt), units.write(units.units[0]) as writer:
        writer.write(Sample("row", {"json": b"{}"}))
        raise KeyboardInterrupt
    assert files(tmp_path) == {} and len(units_of(tmp_path).missing()) == 3


@pytest.mark.parametrize("content", [b"", b"no tar", bytes(1024)])
def test_a_file_that_is_no_finished_shard_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x-001.tar").write_bytes(content)
    with pytest.raises(UsageError, match="not a finished shard"):
        units_of(tmp_path)
    if content == b"no tar":
        with pytest.raises(UsageError, match="exists and is not a tar"):
            units_of(tmp_path, overwrite=True)
    else:
        assert work(units_of(tmp_path, overwrite=True)) == 3


def test_one_file_is_one_unit_and_has_the_bytes_of_a_filter(tmp_path: Path) -> None:
    samples = [Sample(f"row{row:08d}", {"json": b"{}"}) for row in range(3)]
    with ShardOutput(str(tmp_path / "filter.tar"), record()) as out:
        for sample in samples:
            out.write(sample)
    for _ in range(2):
        units = Units(str(tmp_path / "unit.tar"), record(), one_part(3))
        (unit,) = units.missing()
        with units.write(unit) as writer:
            writer.counts["even"] += 3
            for sample in samples:
                writer.write(sample)
    assert (tmp_path / "filter.tar").read_bytes() == (tmp_path / "unit.tar").read_bytes()
    assert not units.numbered and unit.rows == range(3)


@pytest.mark.parametrize("name", ["x-%s%d.tar", "x-%q.tar", "x-%%.tar", "x-%x.tar"])
def test_a_pattern_that_does_not_count_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a shard pattern"):
        Units(str(tmp_path / name), record(), even_parts(1, 1))


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    units = units_of(tmp_path / "nowhere")
    with pytest.raises(HandclrError, match="cannot write"):
        make(units, units.units[0])
