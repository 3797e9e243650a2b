"""$ handclr pca --keypoints: world landmarks, alone and beside the 2D keypoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shard_helpers import crop, load_npz, write_shard

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.fields import KEYPOINTS_2D, WORLD_3D, encode_array
from handclr_cli.contract.poses import PoseTable
from handclr_cli.contract.sample import Sample
from handclr_cli.hand.normalise import pose_vectors
from handclr_cli.similarity.embedding import embed, fit, world_scale
from handclr_cli.similarity.pca_job import PcaSettings, run_pca
from handclr_cli.similarity.pose_store import PoseStore

COUNT = 60


def landmarks(seed: int) -> np.ndarray:
    """World landmarks of a hand: float32 (21, 3), metres from the wrist."""
    world = np.random.default_rng(seed).normal(0, 0.04, (21, 3))
    return (world - world[0]).astype(np.float32)


def shaped(frame: int, world: np.ndarray | None = None, video: str = "attic") -> Sample:
    world = landmarks(frame) if world is None else world
    return crop(video, frame, members={WORLD_3D.suffix: encode_array(WORLD_3D, world)})


SAMPLES = [shaped(frame, video=f"v{frame % 4}") for frame in range(COUNT)]


def parts(samples: list[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Normalised 2D keypoints (N, 42) and world landmarks (N, 63)."""
    points = np.stack([sample.keypoints2d for sample in samples])
    world = np.stack([sample.world3d for sample in samples]).astype(np.float64)
    return pose_vectors(points, np.full(len(points), 16)), world.reshape(-1, 63)


def store(samples: list[Sample], kind: Any, batch: int = COUNT) -> PoseStore:
    kept = PoseStore("crop", kind)
    for start in range(0, len(samples), batch):
        some = samples[start : start + batch]
        kept.add([one.keypoints2d for one in some], [16] * len(some), [one.world3d for one in some])
    return kept


def embedded(path: Path, samples: list[Sample], **options: Any) -> dict[str, np.ndarray]:
    """What `pca` writes."""
    shard = write_shard(path.with_suffix(".tar"), samples)
    run_pca(PcaSettings(shards=[str(shard)], output=str(path), **options))
    return load_npz(path)


def test_both_are_one_behind_the_other() -> None:
    points, world = parts(SAMPLES)
    np.testing.assert_array_equal(np.concatenate([*store(SAMPLES, "2d", 7)]), points)
    np.testing.assert_array_equal(np.concatenate([*store(SAMPLES, "world", 7)]), world)
    both = store(SAMPLES, "both", 7)
    both.world_scale = 3.0
    np.testing.assert_array_equal(np.concatenate([*both]), np.hstack([points, 3.0 * world]))
    np.testing.assert_array_equal(both.sample(1000), np.concatenate([*both]))


def test_the_scale_makes_the_two_vary_alike() -> None:
    poses = store(SAMPLES, "both", 7)
    poses.world_scale = world_scale(poses, 28)
    points, world = parts(SAMPLES)
    expected = np.sqrt(points.var(axis=0).sum() / world.var(axis=0).sum())
    assert poses.world_scale == pytest.approx(expected, rel=1e-12) and 1 < expected < 10
    seen, shape = np.split(np.concatenate([*poses]).var(axis=0), [42])
    assert seen.sum() == pytest.approx(shape.sum(), rel=1e-9)


def test_what_does_not_vary_has_no_scale() -> None:
    still = [shaped(frame, landmarks(0)) for frame in range(5)]
    assert world_scale(store(still, "both"), 2) == 1.0
    alike = [crop("attic", 0, members=dict(one.members)) for one in SAMPLES[:1] * 5]
    assert world_scale(store(alike, "both"), 2) == 1.0


def test_a_robust_scale_is_that_of_the_poses_without_outliers() -> None:
    """Hands of a few shapes, one of twenty a kilometre long."""
    rng = np.random.default_rng(0)
    axes = rng.normal(0, 0.02, (3, 21, 3)) * (np.arange(21) > 0)[:, None]
    samples = [
        shaped(frame, (np.tensordot(rng.normal(size=3), axes, 1) + landmarks(0)).astype(np.float32))
        for frame in range(200)
    ]
    clean = world_scale(store(samples, "both"), 14)
    wrong = [shaped(200 + number, 1000 * landmarks(number)) for number in range(10)]
    spoilt = store(samples + wrong, "both")
    assert world_scale(spoilt, 14) < clean / 100
    assert world_scale(spoilt, 14, robust=True) == pytest.approx(clean, rel=0.05)


@pytest.mark.parametrize(("kind", "numbers", "dimensions"), [("world", 63, 14), ("both", 105, 28)])
def test_axes_are_fitted_and_brought_along(
    kind: Any, numbers: int, dimensions: int, tmp_path: Path
) -> None:
    found = embedded(tmp_path / "pose.npz", SAMPLES, keypoints=kind)
    points, world = parts(SAMPLES)
    vectors = world
    if kind == "both":
        scale = np.sqrt(points.var(axis=0).sum() / world.var(axis=0).sum())
        assert float(found["world_scale"]) == pytest.approx(scale)
        vectors = np.hstack([points, world * found["world_scale"]])
    assert ("world_scale" in found) == (kind == "both")
    assert found["components"].shape == (dimensions, numbers) and found["mean"].shape == (numbers,)
    np.testing.assert_array_equal(found["embedding"], fit([vectors], dimensions).embed(vectors))
    assert json.loads(str(found["meta"]))["arguments"] == {
        "dim": dimensions,
        "normalize": "crop",
        "robust": False,
        "keypoints": kind,
        "basis": False,
    }

    # New footage: the same axes, the same scale, whatever else is in the shard.
    new = [*SAMPLES[7:9], shaped(500, 2 * landmarks(3))]
    again = embedded(tmp_path / "new.npz", new, basis=str(tmp_path / "pose.npz"))
    np.testing.assert_array_equal(again["embedding"][:2], found["embedding"][7:9])
    for name in ("components", "mean", "world_scale"):
        if name in found:
            np.testing.assert_array_equal(again[name], found[name])
    table = PoseTable([str(tmp_path / "pose.npz"), str(tmp_path / "new.npz")])
    assert len(table) == COUNT + 3 and table.axes.keys() == {
        *("components", "mean", "explained_variance_ratio"),
        *({"world_scale"} if kind == "both" else set()),
    }


def test_the_papers_need_no_landmarks_and_are_as_ever(tmp_path: Path) -> None:
    bare = [Sample(one.key, {**one.members}) for one in SAMPLES]
    for sample in bare:
        del sample.members[WORLD_3D.suffix]
    found = embedded(tmp_path / "pose.npz", SAMPLES)
    with_none = embedded(tmp_path / "bare.npz", bare, keypoints="2d")
    points, _ = parts(SAMPLES)
    np.testing.assert_array_equal(found["embedding"], fit([points], 14).embed(points))
    np.testing.assert_array_equal(found["embedding"], with_none["embedding"])
    assert list(found) == [
        *("meta", "key", "video", "video_id", "embedding"),
        *("components", "mean", "explained_variance_ratio"),
    ]
    arguments = json.loads(str(found["meta"]))["arguments"]
    assert list(arguments) == ["dim", "normalize", "robust", "basis"]


def test_what_lacks_a_part_is_dropped(tmp_path: Path) -> None:
    flat = [crop("cellar", frame) for frame in range(5)]
    boneless = [Sample(one.key, {**one.members}) for one in SAMPLES[:3]]
    for sample in boneless:
        del sample.members[KEYPOINTS_2D.suffix]
    shard = write_shard(tmp_path / "a.tar", [*flat, *boneless, *SAMPLES[3:]])
    kept = {}
    for kind in ("2d", "world", "both"):
        done = run_pca(
            PcaSettings(shards=[str(shard)], output=str(tmp_path / "x.npz"), keypoints=kind, dim=2)
        )
        kept[kind] = (done.poses, done.dropped)
    assert kept == {"2d": (62, 3), "world": (60, 5), "both": (57, 8)}
    none = write_shard(tmp_path / "flat.tar", flat)
    why = "none of the 5 samples has keypoints2d.npy and world3d.npy; did they go through"
    with pytest.raises(HandclrError, match=why):
        run_pca(PcaSettings(shards=[str(none)], output=str(tmp_path / "y.npz"), keypoints="both"))


def test_robust_both_leaves_outliers_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    axes = rng.normal(0, 0.02, (3, 21, 3)) * (np.arange(21) > 0)[:, None]
    points = rng.normal(0, 0.5, (3, 21, 2))

    def sample(frame: int, factor: float = 1.0) -> Sample:
        weights = rng.normal(size=3)
        world = factor * (np.tensordot(weights, axes, 1) + landmarks(0))
        seen = encode_array(KEYPOINTS_2D, np.tensordot(weights, points, 1) + np.full((21, 2), 8.0))
        held = shaped(frame, world.astype(np.float32))
        return Sample(held.key, {**held.members, KEYPOINTS_2D.suffix: seen})

    samples = [sample(frame) for frame in range(200)]
    wrong = [sample(200 + number, 1000.0) for number in range(10)]
    shard = write_shard(tmp_path / "a.tar", samples + wrong)
    done = run_pca(
        PcaSettings(
            shards=[str(shard)],
            output=str(tmp_path / "x.npz"),
            keypoints="both",
            dim=3,
            robust=True,
        )
    )
    assert done.outliers == 10


@pytest.mark.parametrize(
    ("options", "setting", "words"),
    [
        ({"dim": 43}, "dim", "at most 42 where the keypoints are 2d"),
        ({"keypoints": "world", "dim": 64}, "dim", "at most 63"),
        ({"keypoints": "world", "normalize": "root"}, "normalize", "is for 2D keypoints"),
        ({"basis": "pose.npz", "keypoints": "2d"}, "keypoints", "pose.npz has both"),
        ({"basis": "odd.npz"}, "", "odd.npz: its axes have 40 numbers"),
    ],
)
def test_what_does_not_go_together_is_refused(
    options: dict[str, Any],
    setting: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    found = embedded(Path("pose.npz"), SAMPLES, keypoints="both")
    np.savez("odd.npz", **{**found, "components": np.eye(28, 40), "mean": np.zeros(40)})
    kind = UsageError if setting else HandclrError
    with pytest.raises(kind, match=words) as caught:
        embedded(Path("x.npz"), SAMPLES, **options)
    assert caught.value.setting == setting and not Path("x.npz").exists()


def test_files_of_another_scale_are_no_one_pool(tmp_path: Path) -> None:
    found = embedded(tmp_path / "pose.npz", SAMPLES, keypoints="both")
    np.savez(tmp_path / "other.npz", **{**found, "world_scale": 2 * found["world_scale"]})
    with pytest.raises(HandclrError, match="other axes"):
        PoseTable([str(tmp_path / "pose.npz"), str(tmp_path / "other.npz")])


def test_a_pose_has_one_place_in_whatever_company() -> None:
    poses = store(SAMPLES, "both", 7)
    poses.world_scale = 2.5
    basis = fit(poses, 20)
    alone = store(SAMPLES[:1], "both")
    alone.world_scale = 2.5
    np.testing.assert_array_equal(embed(alone, basis)[0], embed(poses, basis)[0][:1])
