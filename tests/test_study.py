"""What the study's scripts compute themselves: of mined pairs, of the cells to run, of their
results.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import sys
import time
from dataclasses import replace
from fnmatch import fnmatch
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

from handclr_cli.contract.fields import (
    IMAGE,
    INFO,
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    WORLD_3D,
    encode_array,
    encode_object,
)
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.npz import write_npz
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import ShardOutput
from handclr_cli.similarity.truth import Truth

sys.path.insert(0, str(Path(__file__).parent / "benchmarks" / "study"))

import study
import tables
from pairs import difference
from pairs_crops import (
    blank,
    read_crops,
    seen,
    true_hand,
    upright,
    write_sets,
)
from plan import PROCESSOR, Cell, Model, chain, encoder, models, shards_of
from results import Result, Results
from scale import REAL, REAL_TESTS, SCALES, SHOWN, Scale

PARTS = ("wild", "wild-1")
ROOT = Path(__file__).parents[1]


def crop(
    box: list[int],
    flipped: bool,
    points: np.ndarray,
    joints: np.ndarray,
    key: str = "v_00000000_r",
    frame: int = 0,
) -> Sample:
    """A sample whose image, of 224 px, is blank."""
    info = {"video": "v", "frame": frame, "box": box, "flipped": flipped}
    members = {
        IMAGE.suffix: blank(),
        INFO.suffix: encode_object(info),
        KEYPOINTS_2D.suffix: encode_array(KEYPOINTS_2D, points.astype(np.float32)),
        KEYPOINTS_3D.suffix: encode_array(KEYPOINTS_3D, joints.astype(np.float32)),
    }
    return Sample(key, members)


@pytest.fixture
def hand() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(30, 190, (21, 2)), rng.normal(0, 0.05, (21, 3))


@pytest.mark.parametrize("true_side", [False, True])
def test_a_true_hand_is_shown_as_the_crop_shows_it(
    tmp_path: Path, hand: tuple[np.ndarray, np.ndarray], true_side: bool
) -> None:
    points, joints = hand
    with ShardOutput(str(tmp_path / "truth.tar"), provenance("synth", {})) as out:
        out.write(crop([100, 50, 324, 274], true_side, points, joints))
    truth = Truth(ShardIndex([str(tmp_path / "truth.tar")]), "truth.tar")
    known = true_hand(crop([100, 50, 324, 274], False, points, joints), truth)
    assert known is not None
    for crop_side in (False, True):
        # A square twice as large, whose corner is 10 px to the left and 20 px above.
        shown, metres = seen(known, crop([90, 30, 538, 478], crop_side, points, joints))
        across = 100 + (224 - points[:, 0] if true_side else points[:, 0])
        expected = np.stack([(across - 90) / 2, (50 + points[:, 1] - 30) / 2], axis=1)
        if crop_side:
            expected[:, 0] = 224 - expected[:, 0]
        np.testing.assert_allclose(shown, expected, atol=1e-3)
        sign = -1 if crop_side != true_side else 1
        np.testing.assert_allclose(metres, joints * (sign, 1, 1), atol=1e-6)


def test_the_hand_of_a_crop_is_the_one_it_overlaps_most(
    tmp_path: Path, hand: tuple[np.ndarray, np.ndarray]
) -> None:
    with ShardOutput(str(tmp_path / "truth.tar"), provenance("synth", {})) as out:
        out.write(crop([0, 0, 100, 100], False, *hand))
        out.write(crop([60, 0, 160, 100], False, *hand, key="v_00000000_l"))
    truth = Truth(ShardIndex([str(tmp_path / "truth.tar")]), "truth.tar")

    def row(*box: int, frame: int = 0) -> int | None:
        found = truth.nearest(crop(list(box), False, *hand, key=f"v_{frame:08d}_r", frame=frame))
        return None if found is None else found.row

    assert row(50, 0, 150, 100) == 1
    assert row(5, 0, 105, 100) == 0
    assert row(0, 300, 100, 400) is None
    assert row(0, 0, 100, 100, frame=1) is None


def test_a_hand_of_the_other_side_is_mended_with_its_truth(
    tmp_path: Path, hand: tuple[np.ndarray, np.ndarray]
) -> None:
    """Of two left hands, one is taken for a right one; by track both are left ones."""
    points, joints = hand
    across = points * (-1, 1) + (224, 0)  # as a crop that is not mirrored shows a left hand
    box, other = [100, 50, 324, 274], [400, 50, 624, 274]
    metres = joints * (-1, 1, 1)
    shards = {
        "truth": [
            crop(box, True, points, joints),
            crop(other, True, points, joints, "v_00000000_l"),
        ],
        "hands": [
            crop(box, True, points, joints),
            crop(other, False, across, metres, "v_00000000_r1"),
        ],
        "mended": [
            crop(box, True, points, joints),
            crop(other, True, points, joints, "v_00000000_l"),
        ],
    }
    for name, samples in shards.items():
        with ShardOutput(str(tmp_path / f"{name}.tar"), provenance("test", {})) as out:
            for sample in samples:
                world = encode_array(WORLD_3D, sample.keypoints3d - sample.keypoints3d[0])
                out.write(replace(sample, members={**sample.members, WORLD_3D.suffix: world}))
    run = tmp_path / "run"
    run.mkdir()
    named = {name: str(tmp_path / f"{name}.tar") for name in shards}
    assert write_sets(argparse.Namespace(run=run, frame=None, **named)) == {
        "crops": 2,
        "without_truth": 0,
    }
    crops = read_crops(run)
    assert {kind: rows.tolist() for kind, rows in crops.mirrored.items()} == {
        **{kind: [False, False] for kind in ("crop", "truth", "turned")},
        **{kind: [False, True] for kind in ("right", "mended")},
    }
    sides = points / 224
    for kind in ("right", "mended"):
        for shown, true in zip(crops.seen_as(kind), (joints, sides), strict=True):
            np.testing.assert_allclose(shown, [true, true], atol=1e-6)
        for sample in ShardIndex([str(run / f"{kind}.tar")]):
            np.testing.assert_allclose(sample.keypoints2d, points, atol=1e-4)
            np.testing.assert_allclose(sample.world3d, joints - joints[0], atol=1e-6)
    np.testing.assert_allclose(crops.seen_as("crop")[0][1], metres, atol=1e-6)
    assert crops.row == {b"v_00000000_r": 0, b"v_00000000_r1": 1}


def test_upright_hands_do_not_know_how_they_were_turned_or_where_they_were(
    hand: tuple[np.ndarray, np.ndarray],
) -> None:
    points, _ = hand
    straight = upright(points)
    np.testing.assert_allclose(straight[0], 0, atol=1e-9)
    assert abs(straight[9, 0]) < 1e-9 and straight[9, 1] < 0
    for angle in (0.3, 2.0, 4.5):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        np.testing.assert_allclose(upright(points @ turn.T + (7, -3)), straight, atol=1e-9)
    assert np.abs(upright(points * (-1, 1)) - straight).max() > 1  # a mirrored hand is another one


def test_a_difference_is_paired_by_the_units_and_knows_what_is_left_out() -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(40), 5)
    reference = rng.normal(30, 5, 40)[units] + rng.normal(0, 1, 200)
    np.testing.assert_allclose(difference(reference + 2, reference, units), [2, 2, 2], atol=1e-9)
    low = np.where(reference < np.median(reference), reference, np.nan)
    middle, least, most = difference(low, reference, units)
    assert middle == pytest.approx(np.nanmean(low) - reference.mean())
    assert least < middle < most < 0


@pytest.mark.parametrize("scale", SCALES)
def test_every_cell_is_there_once_and_after_what_it_reads(scale: str, tmp_path: Path) -> None:
    """What a cell reads is in a folder that an earlier one has written to."""
    names, written = set(), set()
    every = (
        cell for model in models(SCALES[scale]) for cell in chain(SCALES[scale], tmp_path, model)
    )
    for cell in dict.fromkeys(every):
        words = list(map(str, cell.words))
        outputs = {
            words[number + 1] for number, word in enumerate(words) if word in ("-o", "--run")
        }
        if words[:2] == ["synth", "footage"] or cell.program != "handclr":
            outputs.add(words[2])
        for word in words:
            given = word.startswith(str(tmp_path / REAL))
            if word.startswith(str(tmp_path)) and not given and word not in outputs:
                assert any(word.startswith(str(Path(output).parent)) for output in written), (
                    cell.name,
                    word,
                )
        assert cell.name not in names
        names.add(cell.name)
        written |= outputs


def test_a_pool_is_of_as_many_parts_of_the_footage_as_it_takes(tmp_path: Path) -> None:
    scale = SCALES["tiny"]
    whole = [str(tmp_path / f"hands/{name}/hands-{{000000..000001}}.tar") for name in PARTS]
    assert shards_of(scale, tmp_path, "8") == whole
    assert shards_of(scale, tmp_path, "main") == whole[:1]
    assert shards_of(scale, tmp_path, "2") == [whole[0].replace("..000001", "..000000")]
    model = Model(encoder("handclr", "8", 0), min(scale.fractions))
    cells = {cell.name: cell for cell in chain(scale, tmp_path, model)}
    for part, name in enumerate(PARTS):
        assert cells[f"footage/{name}"].words[-2:] == ("--seed", part)
    mined = list(map(str, cells["pools/8/pairs"].words))
    named = dict(zip(mined[2:-4:2], mined[3:-4:2], strict=True))
    assert named == {"--truth": str(tmp_path / "footage/wild-1/truth"), "--shards": whole[1]}
    assert mined.count("--truth") == mined.count("--shards") == 2


def test_real_images_are_left_out_where_there_are_none(tmp_path: Path) -> None:
    scale = SCALES["tiny"]
    model = Model(encoder("none", scale.main, 0), max(scale.fractions))
    with_real = [cell.name for cell in chain(scale, tmp_path, model)]
    without = [cell.name for cell in chain(scale, tmp_path, model, real=False)]
    left = [name for name in with_real if name not in without]
    assert left == [
        *(f"labelled/{name}" for name in ("freihand-train", "freihand", "dexycb")),
        *(f"evaluate/{model.name}/{name}" for name in REAL_TESTS),
    ]
    assert [model for model in models(scale) if model.needs_real and model.labels == "lab"]


@pytest.mark.parametrize("jobs", [1, 3])
def test_what_is_to_be_done_is_done_once_and_in_its_order(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = [], set()

    def run(cell: Cell, root: Path, environment: dict[str, str]) -> None:
        assert ("OMP_NUM_THREADS" in environment.keys() - os.environ.keys()) == (jobs > 1)
        begun.append(cell.name)
        time.sleep(0.001)
        note = root / "done" / cell.name
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(cell.line)
        ended.add(cell.name)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(study, "run", run)
    chains = [list(chain(SCALES["tiny"], tmp_path, model)) for model in models(SCALES["tiny"])]
    names = {cell.name for cells in chains for cell in cells}
    study.follow_all(chains, names, tmp_path, jobs)
    assert sorted(begun) == sorted(names) == sorted(ended)
    for cells_ in chains:
        times = [begun.index(cell.name) for cell in cells_]
        assert times == sorted(times)


def test_what_is_asked_for_comes_with_what_it_needs(tmp_path: Path) -> None:
    scale = SCALES["tiny"]
    for model in models(scale):
        whole = list(chain(scale, tmp_path, model, real=model.needs_real))
        first, *_, last = (cell.name for cell in whole if cell.name.startswith("evaluate/"))
        upto = [cell.name for cell in whole].index(first) + 1
        assert study.leading_to([first], whole) == whole[:upto]
        assert study.leading_to([first, last], whole) == study.leading_to(["*"], whole) == whole
        assert study.leading_to(["evaluate/nothing"], whole) == []


def test_a_command_that_fails_ends_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def run(cell: Cell, root: Path, environment: dict[str, str]) -> None:
        begun.append(cell.name)
        time.sleep(0.02)
        sys.exit("it failed")

    monkeypatch.setattr(study, "run", run)
    chains = [[Cell(str(number), ())] for number in range(50)]
    with pytest.raises(SystemExit, match="it failed"):
        study.follow_all(chains, set(map(str, range(50))), tmp_path, 2)
    assert 1 <= len(begun) < 50


def test_the_runs_of_a_folder_are_of_one_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "processor", lambda: "one")
    for _ in range(2):
        study.keep_to_one_processor(tmp_path)
    monkeypatch.setattr(study, "processor", lambda: "another")
    with pytest.raises(SystemExit, match="was begun on another processor than another"):
        study.keep_to_one_processor(tmp_path)
    assert (tmp_path / PROCESSOR).read_text() == "one\n"


def test_an_interval_is_of_images_and_seeds_and_a_difference_is_paired() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(10, 50, 200)
    base = Result(np.stack([np.stack([hard + shift, np.zeros(200)]) for shift in (-1.0, 0.0, 1.0)]))
    ours = Result(base.images[:2] - [[2], [0]])
    low, high = base.interval()
    assert low < base.error < high and high - low > 2
    assert tables.versus(ours, base) == f"-2.0 [-2.0, -2.0], {-2 / base.images[:2, 0].mean():+.0%}"
    # Of one seed no interval is known.
    assert tables.versus(ours.first(1), base) == f"-2.0, {-2 / base.images[0, 0].mean():+.0%}"
    assert (
        tables.cell(base).startswith(f"{base.error:.1f} [")
        and tables.area(base) == "0.000 [0.000, 0.000]"
    )


def note_as_done(scale: Scale, root: Path, model: Model, test: str) -> None:
    """Note all that leads to a model's results on a test set."""
    last = f"evaluate/{model.name}/{test}"
    for cell in study.leading_to([last], chain(scale, root, model, real=False)):
        note = root / "done" / cell.name
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(cell.line)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_an_interval_holds_the_mean_of_all_seeds(seeds: int) -> None:
    """In at least 90 of 100 draws; a bootstrap of three seeds does so in three of four."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        effects = rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 10, 300)
        images = np.stack([effects, np.zeros_like(effects)], axis=1)
        low, high = Result(images).interval()
        held += low < 0 < high
    assert held > 360


def test_what_was_measured_is_kept_for_as_long_as_the_plan_is_the_same(tmp_path: Path) -> None:
    scale, rng = SCALES["tiny"], np.random.default_rng(0)
    root, file = tmp_path / "run", tmp_path / "measured.npz"
    for seed, off in enumerate((0.01, 0.03)):
        model = Model(encoder("simclr", scale.main, seed), 0.5)
        note_as_done(scale, root, model, "lab")
        run = model.folder(root)
        run.mkdir(parents=True)
        truth = rng.normal(0, 0.05, (8, 21, 3)).astype(np.float32)
        found = {"key": np.arange(8).astype("S8"), "keypoints3d": truth.copy(), "truth3d": truth}
        found["keypoints3d"][:, 1:9] += np.float32([off, 0, 0])
        write_npz(str(run / "lab.npz"), "predictions", found, provenance("evaluate", {}))
        (run / "lab.json").write_text(
            '{"mean_pose_of_training_set": {"root+bone": {"mpjpe_mm": 55.5}}}'
        )
    (root / PROCESSOR).write_text("a processor\n")
    Results(scale, root).keep(file)
    kept = Results(scale, file=file)
    assert kept.processors() == {0: {"a processor"}, 1: {"a processor"}}
    assert (
        kept.of("simclr", scale.main, 0.5, "wild") is None
        and kept.of("peclr", scale.main, 0.5) is None
    )
    result = kept.of("simclr", scale.main, 0.5)
    assert result and result.images.shape == (2, 2, 8) and result.mean_pose == 55.5
    np.testing.assert_allclose(result.images[:, 0].mean(1), [8 / 21 * 10, 8 / 21 * 30], rtol=1e-3)
    # Errors of 10 and 30 mm, and of none, on a scale of 50.
    np.testing.assert_allclose(
        result.images[:, 1].mean(1), [1 - 8 / 21 / 5, 1 - 8 / 21 * 3 / 5], atol=0.01
    )
    assert Results(replace(scale, batch=9), file=file).of("simclr", scale.main, 0.5) is None
    # What other commands made is not taken for the plan's.
    with pytest.raises(SystemExit, match="was made by another command"):
        Results(replace(scale, batch=9), root)
    (root / "done" / "pools" / "4" / "pairs").unlink()
    assert Results(scale, root).of("simclr", scale.main, 0.5) is None
    # Of the next session: another run, and what was kept.
    shutil.rmtree(root)
    Results(scale, root, file).keep(file)
    assert Results(scale, file=file).of("simclr", scale.main, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("page", tables.PAGES, ids=str)
def test_a_page_shows_what_is_kept(page: Path) -> None:
    results = Results(SCALES["cpu"], file=tables.MEASURED)
    text = (ROOT / page).read_text()
    assert tables.put(text, {name: make(results) for name, make in tables.TABLES.items()}) == text
    assert "<!-- study: table 1 -->" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", tables.PICTURES)
def test_a_picture_shows_what_is_kept(name: str, tmp_path: Path) -> None:
    """But for how another release of matplotlib draws letters."""
    results = Results(SCALES["cpu"], file=tables.MEASURED)
    tables.PICTURES[name](results, tmp_path / "new.png")
    kept, new = (
        cv2.imread(str(path)).astype(int)
        for path in (ROOT / f"docs/study-{name}.png", tmp_path / "new.png")
    )
    assert kept.shape == new.shape
    assert (np.abs(kept - new).max(axis=-1) > 64).mean() < 0.005


def test_the_commands_of_table_1_are_for_all_of_it_and_no_more() -> None:
    scale = SCALES["cpu"]
    text = (ROOT / "README.md").read_text()
    (line,) = re.findall(r"study\.py runs/study --jobs 2\s+--only ([^`]+)`", text)
    asked = {
        model.name
        for model in models(scale)
        if any(fnmatch(f"evaluate/{model.name}/lab", pattern) for pattern in shlex.split(line))
    }
    shown = product(SHOWN, range(scale.seeds))
    small = min(scale.fractions)
    assert asked == {Model(encoder(name, scale.main, seed), small).name for name, seed in shown}


def test_tables_are_put_between_their_marks() -> None:
    text = (
        "a\n<!-- study: table 1 -->\nold\n<!-- end -->\nb\n<!-- study: table 2 -->\n<!-- end -->\n"
    )
    new = tables.put(text, {"table 1": "| new |", "table 2": "| two |", "beyond": "| none |"})
    assert new == text.replace("old", "| new |").replace("2 -->\n", "2 -->\n| two |\n")


def test_tables_and_pictures_of_nothing_are_made_all_the_same(tmp_path: Path) -> None:
    results = Results(SCALES["tiny"], tmp_path)
    assert all(make(results).startswith("|") for make in tables.TABLES.values())
    for name, picture in tables.PICTURES.items():
        picture(results, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
