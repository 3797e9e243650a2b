"""Provenance: what is in it, what is not, and how it grows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from handclr_cli import __version__
from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.provenance import (
    Provenance,
    after,
    dumps,
    loads,
    provenance,
    read_provenance,
)


def test_what_is_in_it() -> None:
    record = provenance(
        "extract",
        {"fps": 1.0, "every": None},
        ["/data/videos/", "x/a.mp4"],
        seed=3,
        model={"net": "ab"},
    )
    assert record == {
        "contract": 1,
        "stage": "extract",
        "version": __version__,
        "arguments": {"fps": 1.0},
        "seed": 3,
        "inputs": ["videos", "a.mp4"],
        "model": {"net": "ab"},
        "history": [],
    }
    assert "seed" not in provenance("pca", {})
    assert provenance("pca", {}, seed=0)["seed"] == 0


def test_a_file_of_a_later_format_is_refused() -> None:
    record = provenance("extract", {})
    assert read_provenance(dumps(record), "a.tar") == record
    with pytest.raises(HandclrError, match="^a.tar: made by a later handclr, in version 2 of"):
        read_provenance(dumps({**record, "contract": 2, "arguments": "other"}), "a.tar")


def test_it_is_the_same_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = dumps(provenance("extract", {"fps": 1.0}, ["/one/videos"]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOSTNAME", "elsewhere")
    assert dumps(provenance("extract", {"fps": 1.0}, [f"{tmp_path}/videos/"])) == here


def test_many_inputs_are_a_digest() -> None:
    inputs = [f"s-{number:06d}.tar" for number in range(40)]
    record = provenance("pca", {}, inputs)
    assert record["inputs"] == inputs[:32]
    assert record["input_count"] == 40
    swapped = provenance("pca", {}, inputs[:38] + inputs[:37:-1])
    assert swapped["inputs"] == record["inputs"]
    assert swapped["input_sha256"] != record["input_sha256"]
    assert "input_count" not in provenance("pca", {}, inputs[:32])


def test_history_is_oldest_first_and_each_stage_once() -> None:
    first = provenance("extract", {"fps": 1.0})
    other = provenance("extract", {"fps": 2.0})
    second = after(provenance("keypoints", {}), [first])
    third = after(
        provenance("pca", {}),
        [second, None, first, after(provenance("keypoints", {}), [other]), second],
    )
    assert [(past["stage"], past["arguments"]) for past in third["history"]] == [
        ("extract", {"fps": 1.0}),
        ("keypoints", {}),
        ("extract", {"fps": 2.0}),
    ]
    assert all("history" not in past for past in third["history"])
    assert first["history"] == [] and second["history"] == [
        {k: v for k, v in first.items() if k != "history"}
    ]


def test_text() -> None:
    record = provenance("extract", {"path": Path("a")}, ["küche"])
    text = dumps(record)
    assert "\n" not in text and " " not in text and "küche" in text
    assert json.loads(text)["arguments"] == {"path": "a"}
    assert loads(dumps(provenance("x", {}))) == provenance("x", {})
    assert loads(text.encode()) == loads(text)


@pytest.mark.parametrize(
    "data", ["", "words", "[1]", "3", b"\xff\xfe", b"{", '"text"', "[" * 100_000]
)
def test_what_is_no_record(data: bytes | str) -> None:
    assert loads(data) is None


@pytest.mark.slow
def test_the_shards_of_one_job_are_one_past() -> None:
    def shard(number: int) -> Provenance:
        crops = {
            **provenance("extract", {"fps": 1.0}, ["videos"], seed=0),
            "unit": {"number": number},
        }
        return after(
            {**provenance("keypoints", {}), "unit": {"number": number, "of": f"{number:x}"}},
            [crops],
        )

    history = after(provenance("pca", {}), [shard(number) for number in range(5000)])["history"]
    assert [past["stage"] for past in history] == ["extract", "keypoints"]
    assert not any("unit" in past for past in history)
    alone = after(provenance("pca", {}), [shard(3), shard(3)])["history"]
    assert [past["unit"]["number"] for past in alone] == [3, 3]


@pytest.mark.parametrize("history", [None, 3, "words", [1], [[]], {"stage": "x"}])
def test_a_foreign_history_is_survived(history: object) -> None:
    record = after(provenance("pca", {}), [{"stage": "foreign", "history": history}])
    assert record["history"] == [{"stage": "foreign"}]
