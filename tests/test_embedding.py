"""The pose embedding against scikit-learn, and what each normalisation is blind to."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from handclr_cli.contract.errors import HandclrError
from handclr_cli.similarity.embedding import NORMALISATIONS, Basis, fit, pose_vectors


def poses(count: int = 60, seed: int = 0) -> np.ndarray:
    """Hands that vary along a few directions, as real ones do, in pixels of a 224 crop."""
    rng = np.random.default_rng(seed)
    mean, axes = rng.uniform(40, 180, (21, 2)), rng.normal(0, 8, (8, 21, 2))
    return mean + np.tensordot(rng.normal(size=(count, 8)), axes, 1) + rng.normal(0, 1, (count, 21, 2))


SIZES = np.full(60, 224.0)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("dimensions", [1, 14, 40, 42])
def test_equals_scikit_learn_up_to_sign(dimensions: int, normalisation: str) -> None:
    vectors = pose_vectors(poses(), SIZES, normalisation)
    basis = fit(vectors, dimensions)
    theirs = PCA(dimensions, svd_solver="full").fit(vectors)
    # Below the rank, that is: the wrist of a rooted pose does not vary, and its axes are any.
    rank = min(dimensions, np.linalg.matrix_rank(vectors - vectors.mean(axis=0)))
    np.testing.assert_allclose(np.abs(basis.components[:rank]), np.abs(theirs.components_[:rank]), atol=1e-6)
    np.testing.assert_allclose(basis.explained_variance_ratio, theirs.explained_variance_ratio_, atol=1e-10)
    np.testing.assert_allclose(basis.mean, vectors.mean(axis=0))
    np.testing.assert_allclose(
        np.abs(basis.embed(vectors)[:, :rank]), np.abs(theirs.transform(vectors)[:, :rank]), atol=1e-5
    )
    np.testing.assert_allclose(basis.components @ basis.components.T, np.eye(dimensions), atol=1e-10)
    assert (np.diff(basis.explained_variance_ratio) <= 1e-12).all()


def test_shapes_and_dtypes() -> None:
    vectors = pose_vectors(poses().astype(np.float32), np.full(60, 224))
    basis = fit(vectors, 14)
    assert (vectors.shape, vectors.dtype) == ((60, 42), np.float64)
    assert (basis.components.shape, basis.components.dtype) == ((14, 42), np.float64)
    assert (basis.embed(vectors).shape, basis.embed(vectors).dtype) == ((60, 14), np.float32)
    # x, y of joint 0, then x, y of joint 1
    np.testing.assert_allclose(vectors[0, :4] * 224, poses()[0, :2].ravel(), rtol=1e-6)


def test_the_sign_is_fixed() -> None:
    vectors = pose_vectors(poses(), SIZES)
    basis = fit(vectors, 14)
    strongest = np.abs(basis.components).argmax(axis=1)
    assert (basis.components[np.arange(14), strongest] > 0).all()
    # Mirrored data span mirrored axes, and in another order the same ones.
    np.testing.assert_allclose(fit(-vectors, 14).components, basis.components, atol=1e-8)
    np.testing.assert_allclose(fit(vectors[::-1], 14).components, basis.components, atol=1e-8)
    again = fit(vectors.copy(), 14)
    assert all((ours == theirs).all() for ours, theirs in zip(basis, again, strict=True))


def test_distances_are_those_of_the_papers_projection() -> None:
    """The paper's M^T phi is not centred; the distances, all that mining uses, are the same."""
    vectors = pose_vectors(poses(), SIZES)
    basis = fit(vectors, 14)
    ours, papers = basis.embed(vectors).astype(np.float64), vectors @ basis.components.T

    def distances(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points[:, None] - points[None], axis=-1)

    np.testing.assert_allclose(distances(ours), distances(papers), atol=1e-6)


def test_all_42_dimensions_keep_every_distance() -> None:
    vectors = pose_vectors(poses(), SIZES)
    embedded = fit(vectors, 42).embed(vectors).astype(np.float64)
    np.testing.assert_allclose(
        np.linalg.norm(embedded[:, None] - embedded, axis=-1),
        np.linalg.norm(vectors[:, None] - vectors, axis=-1),
        atol=1e-6,
    )


def test_a_basis_gives_the_fits_own_embedding() -> None:
    vectors = pose_vectors(poses(), SIZES)
    fitted = fit(vectors, 14)
    given = Basis(fitted.components.copy(), fitted.mean.copy(), fitted.explained_variance_ratio.copy())
    assert (given.embed(vectors) == fitted.embed(vectors)).all()
    # A pose in other company has the same place.
    np.testing.assert_allclose(given.embed(vectors[7:8]), fitted.embed(vectors)[7:8], atol=1e-6)


@pytest.mark.parametrize(
    ("normalisation", "moved", "scaled"),
    [("crop", False, False), ("root", True, False), ("root-scale", True, True), ("box", True, True)],
)
def test_invariance(normalisation: str, moved: bool, scaled: bool) -> None:
    before = pose_vectors(poses(), SIZES, normalisation)
    shift, scale = np.random.default_rng(1).normal(0, 20, (60, 1, 2)), np.linspace(0.5, 1.5, 60)[:, None, None]
    after_move = pose_vectors(poses() + shift, SIZES, normalisation)
    after_scale = pose_vectors(poses() * scale, SIZES, normalisation)
    assert np.allclose(before, after_move, atol=1e-9) == moved
    assert np.allclose(before, after_scale, atol=1e-9) == scaled
    # Another resolution of the same crop is the same pose to all of them; rotation is to none.
    np.testing.assert_allclose(pose_vectors(poses() * 2, SIZES * 2, normalisation), before, atol=1e-12)
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
        pose_vectors(points, sizes, normalisation), pose_vectors(poses(), SIZES, normalisation), atol=1e-12
    )


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_a_hand_shrunk_to_a_point_is_finite(normalisation: str) -> None:
    assert np.isfinite(pose_vectors(np.full((1, 21, 2), 100.0), np.array([224]), normalisation)).all()


@pytest.mark.filterwarnings("error")
def test_equal_poses() -> None:
    vectors = pose_vectors(np.repeat(poses(1), 5, axis=0), np.full(5, 224))
    basis = fit(vectors, 3)
    assert all(np.isfinite(part).all() for part in basis)
    assert (fit(np.full((5, 42), 0.5), 3).explained_variance_ratio == 0).all()
    np.testing.assert_allclose(basis.embed(vectors), 0, atol=1e-6)


def test_too_few_poses() -> None:
    vectors = pose_vectors(poses(), SIZES)
    with pytest.raises(HandclrError, match="13 poses cannot give 14 dimensions; pass a smaller --dim"):
        fit(vectors[:13], 14)
    assert np.isfinite(fit(vectors[:14], 14).components).all()
    with pytest.raises(HandclrError, match="one pose"):
        fit(vectors[:1], 1)
