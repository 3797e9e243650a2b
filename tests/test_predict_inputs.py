"""What the inputs of predict are taken for."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from labelled_helpers import write_labelled
from posed_helpers import crop_of, hands_of

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.prediction import predict_job
from handclr_cli.prediction.inputs import are_footage
from handclr_cli.prediction.predict_job import PredictResult, run_predict
from handclr_cli.prediction.settings import PredictSettings


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of footage, one of shards, and shards that are called otherwise."""
    for name in ("videos/deep/a.mp4", "videos/b.png", "clip.mov", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"what is in it is looked at later")
    (tmp_path / "shards").mkdir()
    write_labelled(tmp_path / "shards" / "crops-000000.tar", 1)
    write_labelled(tmp_path / "crops", 1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "inputs", [["videos"], ["clip.mov", "videos"], ["*.mov"], ["notes.txt"], ["gone.mp4"]]
)
def test_what_is_footage(place: Path, inputs: list[str]) -> None:
    assert are_footage(inputs)


@pytest.mark.parametrize(
    "inputs",
    [
        *(["-"], ["shards"], ["crops"], ["shards/*.tar"], ["shards/crops-{000000..000003}.tar"]),
        *(["gone.tar"], ["http://there/crops.tar"], ["shards", "crops"]),
    ],
)
def test_what_is_shards(place: Path, inputs: list[str]) -> None:
    assert not are_footage(inputs)


def test_a_named_pipe_is_one_of_shards(place: Path) -> None:
    os.mkfifo(place / "pipe")
    assert not are_footage(["pipe"])


@pytest.mark.parametrize("inputs", [["clip.mov", "shards"], ["crops", "videos/b.png"]])
def test_both_kinds_are_refused(place: Path, inputs: list[str]) -> None:
    with pytest.raises(UsageError, match=r"is footage, .* a shard of crops; name one of the two"):
        are_footage(inputs)


def test_a_folder_of_both_kinds_is_refused(place: Path) -> None:
    write_labelled(place / "videos" / "crops.tar", 1)
    wanted = "videos holds shards of crops and footage; name the shards, videos/*.tar"
    with pytest.raises(UsageError, match=re.escape(wanted)):
        are_footage(["videos"])


def test_nothing_at_a_terminal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="no input: name footage or shards, or pipe shards in"):
        are_footage([])


def test_how_surely_hands_are_looked_for_is_recorded_where_it_was_chosen() -> None:
    assert "min_score" not in PredictSettings(inputs=["x.tar"]).arguments()
    assert PredictSettings(inputs=["x.tar"], min_score=0.9).arguments()["min_score"] == 0.9


def test_a_film_that_cannot_be_made_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []

    def make(film: Any, *rest: Any) -> str:
        if film.video in "bc":
            raise HandclrError(f"no {film.video}")
        made.append(film.video)
        return "drawn"

    films = [SimpleNamespace(video=video) for video in "abcd"]
    source = SimpleNamespace(pace=None, was_read=lambda video: True)
    monkeypatch.setattr(
        predict_job, "load_estimator", lambda settings: SimpleNamespace(sees_crops=1)
    )
    monkeypatch.setattr(predict_job, "source_of", lambda *settings: source)
    monkeypatch.setattr(predict_job, "_films", lambda *settings: (films, None))
    monkeypatch.setattr(predict_job, "_refuse_conflicts", lambda *settings: None)
    monkeypatch.setattr(predict_job, "_predicted", lambda *settings: (None, None))
    monkeypatch.setattr(predict_job, "_made", make)
    with pytest.raises(HandclrError, match="no c"):
        run_predict(PredictSettings(inputs=["x.tar"], output=None, overlay="films"))
    assert made == ["a", "d"] and "no b" in capsys.readouterr().err


def test_a_page_tells_of_the_hands_of_its_own_film(monkeypatch: pytest.MonkeyPatch) -> None:
    hands = hands_of([crop_of(number, f"{video}.mp4") for number in range(3) for video in "ab"])
    hands.placed.source2d[1::2, :, 0] += 7
    hands.placed.depth_sigma[1::2] = 0.04
    hands.placed.fitted[5] = False
    hands.known[1::2] = "of the crop"
    told = predict_job._told(hands)
    done = PredictResult(
        **told, by="it", skipped=0, without_hand=0, bone_mm=90.0, bone_of="all", pace=None
    )
    monkeypatch.setattr(
        "handclr_cli.prediction.films.make_film", lambda film, own, about, *_: about
    )
    pages = []
    for video in ("a.mp4", "b.mp4", "c.mp4"):
        film: Any = SimpleNamespace(video=video, overlay=None)
        pages.append(dict(predict_job._made(film, hands, done, 60.0, pytest.fail)))
    assert [page.get("fit", "")[:15] for page in pages] == [
        "3D falls 0.0 px",
        "3D falls 7.0 px",
        "",
    ]
    assert pages[0]["depth"] != pages[1]["depth"] and pages[1]["depth"].startswith("+/- 40 mm")
    assert [page.get("placed by extent", "")[:2] for page in pages] == ["", "1 ", ""]
    assert [page["camera"] for page in pages] == [
        f"{hands.known[0]} (60 degrees)",
        "of the crop",
        "none",
    ]
    assert {page["size"] for page in pages} == {"reference bone 90.0 mm, all"}
