"""The pose embedding against scikit-learn, and what each normalisation is blind to."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from handclr_cli.contract.errors import HandclrError
from handclr_cli.hand.normalise import NORMALISATIONS, pose_vectors
from handclr_cli.similarity.embedding import Basis, embed, fit, fit_robust
from handclr_cli.similarity.pose_store import PoseStore


def poses(count: int = 60, seed: int = 0) -> np.ndarray:
    """Hands that vary along a few directions, as real ones do, in pixels of a 224 crop."""
    rng = np.random.default_rng(seed)
    mean, axes = rng.uniform(40, 180, (21, 2)), rng.normal(0, 8, (8, 21, 2))
    return (
        mean + np.tensordot(rng.normal(size=(count, 8)), axes, 1) + rng.normal(0, 1, (count, 21, 2))
    )


SIZES = np.full(60, 224.0)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("dimensions", [1, 14, 40, 42])
def test_equals_scikit_learn_up_to_sign(dimensions: int, normalisation: str) -> None:
    vectors = pose_vectors(poses(), SIZES, normalisation)
    basis = fit([vectors], dimensions)
    theirs = PCA(dimensions, svd_solver="full").fit(vectors)
    # Below the rank, that is: the wrist of a rooted pose does not vary, and its axes are any.
    rank = min(dimensions, np.linalg.matrix_rank(vectors - vectors.mean(axis=0)))
    np.testing.assert_allclose(
        np.abs(basis.components[:rank]), np.abs(theirs.components_[:rank]), atol=1e-6
    )
    np.testing.assert_allclose(
        basis.explained_variance_ratio, theirs.explained_variance_ratio_, atol=1e-10
    )
    np.testing.assert_allclose(basis.mean, vectors.mean(axis=0))
    np.testing.assert_allclose(
        np.abs(basis.embed(vectors)[:, :rank]),
        np.abs(theirs.transform(vectors)[:, :rank]),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        basis.components @ basis.components.T, np.eye(dimensions), atol=1e-10
    )
    assert (np.diff(basis.explained_variance_ratio) <= 1e-12).all()


def test_shapes_and_dtypes() -> None:
    vectors = pose_vectors(poses().astype(np.float32), np.full(60, 224))
    basis = fit([vectors], 14)
    assert (vectors.shape, vectors.dtype) == ((60, 42), np.float64)
    assert (basis.components.shape, basis.components.dtype) == ((14, 42), np.float64)
    assert (basis.embed(vectors).shape, basis.embed(vectors).dtype) == ((60, 14), np.float32)
    # x, y of joint 0, then x, y of joint 1
    np.testing.assert_allclose(vectors[0, :4] * 224, poses()[0, :2].ravel(), rtol=1e-6)


def test_the_sign_is_fixed() -> None:
    vectors = pose_vectors(poses(), SIZES)
    basis = fit([vectors], 14)
    strongest = np.abs(basis.components).argmax(axis=1)
    assert (basis.components[np.arange(14), strongest] > 0).all()
    # Mirrored data span mirrored axes, and in another order the same ones.
    np.testing.assert_allclose(fit([-vectors], 14).components, basis.components, atol=1e-8)
    np.testing.assert_allclose(fit([vectors[::-1]], 14).components, basis.components, atol=1e-8)
    again = fit([vectors.copy()], 14)
    assert all((ours == theirs).all() for ours, theirs in zip(basis, again, strict=True))


def test_distances_are_those_of_the_papers_projection() -> None:
    """The paper's M^T phi is not centred; the distances, all that mining uses, are the same."""
    vectors = pose_vectors(poses(), SIZES)
    basis = fit([vectors], 14)
    ours, papers = basis.embed(vectors).astype(np.float64), vectors @ basis.components.T

    def distances(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points[:, None] - points[None], axis=-1)

    np.testing.assert_allclose(distances(ours), distances(papers), atol=1e-6)


def test_all_42_dimensions_keep_every_distance() -> None:
    vectors = pose_vectors(poses(), SIZES)
    embedded = fit([vectors], 42).embed(vectors).astype(np.float64)
    np.testing.assert_allclose(
        np.linalg.norm(embedded[:, None] - embedded, axis=-1),
        np.linalg.norm(vectors[:, None] - vectors, axis=-1),
        atol=1e-6,
    )


def test_a_basis_gives_the_fits_own_embedding() -> None:
    vectors = pose_vectors(poses(), SIZES)
    fitted = fit([vectors], 14)
    given = Basis(
        fitted.components.copy(), fitted.mean.copy(), fitted.explained_variance_ratio.copy()
    )
    assert (given.embed(vectors) == fitted.embed(vectors)).all()
    # A pose in other company has the same place.
    assert (given.embed(vectors[7:8]) == fitted.embed(vectors)[7:8]).all()


@pytest.mark.parametrize(
    ("normalisation", "moved", "scaled"),
    [
        ("crop", False, False),
        ("root", True, False),
        ("root-scale", True, True),
        ("box", True, True),
    ],
)
def test_invariance(normalisation: str, moved: bool, scaled: bool) -> None:
    before = pose_vectors(poses(), SIZES, normalisation)
    shift, scale = (
        np.random.default_rng(1).normal(0, 20, (60, 1, 2)),
        np.linspace(0.5, 1.5, 60)[:, None, None],
    )
    after_move = pose_vectors(poses() + shift, SIZES, normalisation)
    after_scale = pose_vectors(poses() * scale, SIZES, normalisation)
    assert np.allclose(before, after_move, atol=1e-9) == moved
    assert np.allclose(before, after_scale, atol=1e-9) == scaled
    # Another resolution of the same crop is the same pose to all of them; rotation is to none.
    np.testing.assert_allclose(
        pose_vectors(poses() * 2, SIZES * 2, normalisation), before, atol=1e-12
    )
    turned = (poses() - 112) @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + 112
    assert not np.allclose(before, pose_vectors(turned, SIZES, normalisation), atol=1e-3)


def test_what_the_normalisations_are() -> None:
    points = poses()
    np.testing.assert_allclose(pose_vectors(points, SIZES).reshape(-1, 21, 2), points / 224)
    assert (pose_vectors(points, SIZES, "root")[:, :2] == 0).all()
    rooted = pose_vectors(points, SIZES, "root-scale").reshape(-1, 21, 2)
    np.testing.assert_allclose(np.linalg.norm(rooted[:, 9], axis=-1), 1)
    boxed = pose_vectors(points, SIZES, "box").reshape(-1, 21, 2)
    np.testing.assert_allclose(boxed.max(axis=1), -boxed.min(axis=1))
    np.testing.assert_allclose(np.ptp(boxed, axis=1).max(axis=1), 1)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_each_crop_has_its_own_size(normalisation: str) -> None:
    sizes = np.where(np.arange(60) % 2, 224.0, 448.0)
    points = poses() * (sizes / 224)[:, None, None]
    np.testing.assert_allclose(
        pose_vectors(points, sizes, normalisation),
        pose_vectors(poses(), SIZES, normalisation),
        atol=1e-12,
    )


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_a_hand_shrunk_to_a_point_is_finite(normalisation: str) -> None:
    assert np.isfinite(
        pose_vectors(np.full((1, 21, 2), 100.0), np.array([224]), normalisation)
    ).all()


@pytest.mark.filterwarnings("error")
def test_equal_poses() -> None:
    vectors = pose_vectors(np.repeat(poses(1), 5, axis=0), np.full(5, 224))
    basis = fit([vectors], 3)
    assert all(np.isfinite(part).all() for part in basis)
    assert (fit([np.full((5, 42), 0.5)], 3).explained_variance_ratio == 0).all()
    np.testing.assert_allclose(basis.embed(vectors), 0, atol=1e-6)


def test_too_few_poses() -> None:
    vectors = pose_vectors(poses(), SIZES)
    with pytest.raises(HandclrError) as caught:
        fit([vectors[:13]], 14)
    more = "add footage, take more frames of it by handclr extract (fps=5, or all: every=1)"
    fewer = "ask for fewer dimensions (dim=12)"
    assert str(caught.value) == f"dim: 13 poses cannot give 14 dimensions; {more}, or {fewer}"
    assert np.isfinite(fit([vectors[:14]], 14).components).all()
    with pytest.raises(HandclrError, match="one pose"):
        fit([vectors[:1]], 1)


# The fit from batches.


def largest_angle(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest principal angle between the spans of orthonormal rows, in degrees."""
    cosines = np.linalg.svd(ours @ theirs.T)[1]
    return float(np.degrees(np.arccos(min(cosines.min(), 1.0))))


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("size", [1, 5, 37, 1000])
def test_batches_of_any_size_give_the_axes_of_all(size: int, normalisation: str) -> None:
    vectors = pose_vectors(poses(500), np.full(500, 224.0), normalisation)
    basis = fit((vectors[start : start + size] for start in range(0, 500, size)), 14)
    theirs = PCA(14, svd_solver="covariance_eigh").fit(vectors)
    np.testing.assert_allclose(np.abs(basis.components), np.abs(theirs.components_), atol=1e-7)
    np.testing.assert_allclose(basis.mean, theirs.mean_, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        basis.explained_variance_ratio, theirs.explained_variance_ratio_, atol=1e-12
    )
    np.testing.assert_allclose(
        basis.components, fit([vectors, vectors[:0]], 14).components, atol=1e-9
    )


def ill_conditioned(least: float, mean: float, count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Vectors far from the origin, with standard deviations from 1 to `least` along the axes that
    are returned.

    The scores are made uncorrelated, so that the axes are the principal ones but for rounding; they
    drift, so that no batch has the mean of all.
    """
    rng = np.random.default_rng(3)
    axes = np.linalg.qr(rng.normal(size=(42, 42)))[0]
    scores = rng.normal(size=(count, 42)) + np.linspace(-3, 3, count)[:, None] * rng.normal(size=42)
    scores = np.linalg.qr(scores - scores.mean(axis=0))[0] * np.sqrt(count)
    return scores * np.geomspace(1, least, 42) @ axes + mean, axes


@pytest.mark.parametrize(
    ("least", "mean", "solver"),
    [(1e-4, 0, "covariance_eigh"), (1e-3, 100, "full"), (1e-3, 1e5, "full"), (1e-8, 0, "full")],
)
def test_ill_conditioned_vectors(least: float, mean: float, solver: str) -> None:
    vectors, axes = ill_conditioned(least, mean)
    basis = fit(np.array_split(vectors, 11), 42)
    theirs = PCA(42, svd_solver=solver).fit(vectors)
    np.testing.assert_allclose(np.abs(basis.components), np.abs(theirs.components_), atol=1e-5)
    np.testing.assert_allclose(np.abs(basis.components), np.abs(axes), atol=1e-5)
    deviations = np.sqrt(basis.explained_variance_ratio / basis.explained_variance_ratio[0])
    np.testing.assert_allclose(deviations, np.geomspace(1, least, 42), rtol=1e-5)
    np.testing.assert_allclose(basis.components @ basis.components.T, np.eye(42), atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_few_and_equal_poses_in_batches() -> None:
    vectors = pose_vectors(poses(14), SIZES[:14])
    ours, theirs = fit(vectors[:, None], 14), PCA(14, svd_solver="covariance_eigh").fit(vectors)
    np.testing.assert_allclose(
        np.abs(ours.components[:13]), np.abs(theirs.components_[:13]), atol=1e-6
    )
    assert ours.explained_variance_ratio[13] < 1e-25  # 14 poses span 13 dimensions
    with pytest.raises(HandclrError, match="13 poses cannot give 14 dimensions"):
        fit(vectors[:13, None], 14)
    equal = fit([np.repeat(vectors[:1], 5, axis=0)] * 9, 42)
    assert (equal.explained_variance_ratio == 0).all() and (equal.mean == vectors[0]).all()
    np.testing.assert_array_equal(equal.components @ equal.components.T, np.eye(42))


# The fit without outliers.


def store(points: np.ndarray, normalisation: str = "crop", size: int = 700) -> PoseStore:
    kept = PoseStore(normalisation)
    for start in range(0, len(points), size):
        kept.add(points[start : start + size], [224] * len(points[start : start + size]))
    return kept


def hands(count: int, seed: int = 0) -> np.ndarray:
    """Poses that vary less than wrong keypoints do, with palms that are never seen end on."""
    points = poses(1, seed) + 0.5 * (poses(count, seed) - poses(1, seed))
    points[:, 9] = (
        points[:, 0] + (60.0, -80.0) + np.random.default_rng(seed).normal(0, 6, (count, 2))
    )
    return points


def spoil(points: np.ndarray, share: float, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Replace a share of the poses by wrong ones; also says which."""
    rng = np.random.default_rng(5)
    rows = rng.choice(len(points), int(share * len(points)), replace=False)
    wrong = {
        "anywhere": lambda: rng.normal(0, 2000, (len(rows), 21, 2)),
        "in the crop": lambda: rng.uniform(0, 224, (len(rows), 21, 2)),
        "joints exchanged": lambda: rng.permuted(points[rows], axis=1),
    }
    spoilt, bad = points.copy(), np.zeros(len(points), bool)
    spoilt[rows], bad[rows] = wrong[kind](), True
    return spoilt, bad


def test_a_store_gives_back_what_it_took() -> None:
    points = poses(1000).astype(np.float32)
    kept, vectors = store(points, "box"), pose_vectors(points, np.full(1000, 224), "box")
    assert len(kept) == 1000
    np.testing.assert_array_equal(np.concatenate([*kept]), vectors)
    basis = fit(kept, 14)
    np.testing.assert_array_equal(embed(kept, basis)[0], basis.embed(vectors))
    np.testing.assert_array_equal(kept.sample(1000), vectors)
    some = kept.sample(300)
    rows = [np.flatnonzero((vectors == vector).all(axis=1)).item() for vector in some]
    assert rows == sorted(set(rows)) and len(rows) == 300 and rows[0] < 20 and rows[-1] > 980
    np.testing.assert_array_equal(store(points, "box", 64).sample(300), some)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_robust_without_outliers_is_the_plain_fit(normalisation: str) -> None:
    kept = store(hands(3000), normalisation)
    robust, outliers = fit_robust(kept, 8)
    assert outliers <= 3
    assert largest_angle(robust.components, fit(kept, 8).components) < 0.1


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("kind", ["anywhere", "in the crop", "joints exchanged"])
@pytest.mark.parametrize("share", [0.01, 0.1])
@pytest.mark.slow
def test_outliers_do_not_turn_the_axes(share: float, kind: str, normalisation: str) -> None:
    points, bad = spoil(hands(3000), share, kind)
    kept, clean = store(points, normalisation), fit(store(hands(3000)[~bad], normalisation), 8)
    robust, outliers = fit_robust(kept, 8)
    assert largest_angle(robust.components, clean.components) < 3
    assert share < 0.1 or largest_angle(fit(kept, 8).components, clean.components) > 5
    assert abs(outliers - bad.sum()) <= 0.05 * bad.sum() + 3
    np.testing.assert_allclose(
        robust.explained_variance_ratio, clean.explained_variance_ratio, atol=0.01
    )
    again, _ = fit_robust(store(points, normalisation), 8)
    assert all((ours == theirs).all() for ours, theirs in zip(robust, again, strict=True))


def test_a_large_store_is_judged_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    points, bad = spoil(hands(6000), 0.05, "anywhere")
    whole, found = fit_robust(store(points), 8)
    monkeypatch.setattr("handclr_cli.similarity.embedding.SAMPLE", 1000)
    sampled, found_by_sample = fit_robust(store(points), 8)
    assert abs(found - bad.sum()) <= 3 and abs(found_by_sample - bad.sum()) <= 6
    assert largest_angle(sampled.components, whole.components) < 0.1


@pytest.mark.filterwarnings("error")
def test_robust_where_there_is_little_to_judge_by() -> None:
    basis, outliers = fit_robust(store(np.repeat(poses(1), 30, axis=0)), 5)
    assert outliers == 0 and (basis.explained_variance_ratio == 0).all()
    # Two still videos and a livelier one: nobody is an outlier for belonging to the smaller part.
    still = np.concatenate([np.repeat(poses(2), [60, 20], axis=0), poses(20, 1)])
    assert fit_robust(store(still), 5)[1] <= 20
    with pytest.raises(HandclrError, match="13 poses cannot give 14 dimensions"):
        fit_robust(store(poses(13)), 14)
    assert fit_robust(store(poses(60)), 42)[0].components.shape == (42, 42)
