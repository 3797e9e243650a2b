"""The hand's surface is closed, follows its bones without tearing, and holds every
keypoint inside.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mesh_layers import layers_above

from handclr_cli.synth.motion import random_pose
from handclr_cli.synth.skeleton import (
    BONES,
    FOREARM,
    LIMITS,
    PALM,
    Build,
    average_build,
    draw_build,
    keypoints,
    pose_bones,
    rest_pose,
)
from handclr_cli.synth.skinning import occlusion, skinned
from handclr_cli.synth.template import Template, template
from handclr_cli.synth.vocabulary import VOCABULARY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shape() -> Template:
    return template()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def any_poses(count: int, seed: int = 0) -> np.ndarray:
    return rng(seed).uniform(LIMITS[:, 0], LIMITS[:, 1], (count, 22))


def directed_edges(faces: np.ndarray) -> np.ndarray:
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def keypoint_layers(shape: Template, build: Build, pose: np.ndarray) -> np.ndarray:
    frames, joints = pose_bones(build, pose)
    vertices = skinned(shape, build).posed(frames)[0][0].double().numpy()
    return layers_above(keypoints(frames, joints)[0], vertices, shape.faces)


# The template


def test_closed_but_for_the_arms_end_and_consistently_wound(shape: Template) -> None:
    assert np.array_equal(np.unique(shape.faces), np.arange(len(shape.vertices)))
    assert (np.diff(np.sort(shape.faces, axis=1), axis=1) > 0).all()
    edges = directed_edges(shape.faces)
    number = edges[:, 0] * len(shape.vertices) + edges[:, 1]
    back = edges[:, 1] * len(shape.vertices) + edges[:, 0]
    assert len(np.unique(number)) == len(number), "no edge is run along twice in one direction"
    rim = edges[~np.isin(number, back)]
    assert 20 < len(rim) < 400 and (shape.vertices[rim, 1] < -0.4).all()
    # The rim is a single loop: each of its points is left once and reached once.
    assert len(np.unique(rim[:, 0])) == len(np.unique(rim[:, 1])) == len(rim)
    pairs = len(np.unique(np.sort(edges, axis=1), axis=0))
    assert len(shape.vertices) - pairs + len(shape.faces) == 1, (
        "a disc: in one piece, without handles"
    )


def test_normals_point_out_of_the_faces(shape: Template) -> None:
    corners = shape.vertices[shape.faces].astype(float)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normals, axis=1)
    assert area.min() > 0
    agreement = (normals / area[:, None] * shape.normals[shape.faces].mean(axis=1)).sum(axis=1)
    assert agreement.min() > 0.3 and np.quantile(agreement, 0.01) > 0.8
    np.testing.assert_allclose(np.linalg.norm(shape.normals, axis=1), 1, atol=1e-5)
    volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    assert volume > 0.0005, "outside is outside"


def test_binding(shape: Template) -> None:
    assert shape.weights.shape == (len(shape.vertices), len(BONES)) and (shape.weights >= 0).all()
    np.testing.assert_allclose(shape.weights.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(shape.bone, shape.weights.argmax(axis=1)) and set(shape.bone) == set(
        range(17)
    )
    frames = shape.frames[shape.bone]
    back = np.einsum("vij,vj->vi", frames[:, :3, :3], shape.local) + frames[:, :3, 3]
    np.testing.assert_allclose(back, shape.vertices, atol=1e-6)
    assert np.abs(shape.dorsal).max() <= 1.001
    palm = (shape.bone == PALM) & (np.abs(shape.vertices[:, 0]) < 0.015)
    palm &= (shape.vertices[:, 1] > 0.04) & (shape.vertices[:, 1] < 0.07)
    assert ((shape.dorsal[palm] > 0) == (shape.vertices[palm, 2] > 0)).mean() > 0.95
    # A fingertip's skin does not follow another finger.
    for finger in range(5):
        tip = shape.bone == 4 + 3 * finger
        others = np.delete(np.arange(2, 17), range(3 * finger, 3 * finger + 3))
        assert shape.weights[tip][:, others].max() < 0.05


# Skinning


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_the_rest_pose_is_the_rest_mesh(shape: Template, seed: int | None) -> None:
    build = average_build() if seed is None else draw_build(rng(seed))
    mesh = skinned(shape, build)
    vertices, normals = mesh.posed(pose_bones(build, np.stack([rest_pose()] * 2))[0])
    assert vertices.shape == normals.shape == (2, len(shape.vertices), 3)
    np.testing.assert_allclose(vertices, mesh.vertices.expand(2, -1, -1), atol=2e-6)
    np.testing.assert_allclose(normals, mesh.normals.expand(2, -1, -1), atol=1e-5)
    if seed is None:
        np.testing.assert_allclose(mesh.vertices, shape.vertices, atol=1e-7)


def test_skin_of_one_bone_moves_rigidly(shape: Template) -> None:
    build = draw_build(rng(2))
    mesh, (rest, _) = skinned(shape, build), pose_bones(build, rest_pose())
    frames, _ = pose_bones(build, any_poses(8))
    vertices, normals = (part.double().numpy() for part in mesh.posed(frames))
    points = mesh.vertices.double().numpy()
    bones = set()
    for bone in range(17):
        own = shape.weights[:, bone] == 1
        move = frames[:, bone] @ np.linalg.inv(rest[0, bone])
        moved = np.einsum("tij,vj->tvi", move[:, :3, :3], points[own]) + move[:, None, :3, 3]
        np.testing.assert_allclose(vertices[:, own], moved, atol=3e-6)
        turned = np.einsum("tij,vj->tvi", move[:, :3, :3], shape.normals[own])
        np.testing.assert_allclose(normals[:, own], turned, atol=1e-5)
        bones |= {bone} if own.any() else set()
    assert {FOREARM, PALM, 4, 7, 10, 13} <= bones


def test_no_vertex_flies_away(shape: Template) -> None:
    edges = torch.tensor(directed_edges(shape.faces))
    # The arm's are long already.
    edges = edges[
        (edges[:, 0] < edges[:, 1]) & (torch.tensor(shape.vertices)[edges[:, 0], 1] > -0.03)
    ]
    generator = rng()
    for number in range(10):
        build = draw_build(generator)
        random = any_poses(10, number)
        frames, _ = pose_bones(
            build, np.concatenate([random, [random_pose(generator) for _ in range(10)]])
        )
        mesh = skinned(shape, build)
        vertices, normals = mesh.posed(frames)
        assert torch.isfinite(vertices).all() and ((normals.norm(dim=-1) - 1).abs() < 1e-4).all()
        rest = (mesh.vertices[edges[:, 0]] - mesh.vertices[edges[:, 1]]).norm(dim=-1)
        lengths = (vertices[:, edges[:, 0]] - vertices[:, edges[:, 1]]).norm(dim=-1)
        # The worst are in the thumb's web, bent as far as it goes.
        assert rest.max() < 0.007 and lengths.max() < 0.025
        assert (lengths > 0.008).float().mean() < 3e-3


def test_frames_of_a_batch_are_posed_as_each_alone(shape: Template) -> None:
    build = draw_build(rng(4))
    mesh, (frames, _) = skinned(shape, build), pose_bones(build, any_poses(3))
    together = mesh.posed(frames)
    sky = occlusion(*together, frames, build)
    for row in range(3):
        vertices, normals = mesh.posed(frames[row : row + 1])
        np.testing.assert_allclose(vertices[0], together[0][row], atol=1e-6)
        np.testing.assert_allclose(normals[0], together[1][row], atol=1e-5)
        np.testing.assert_allclose(
            occlusion(vertices, normals, frames[row : row + 1], build)[0], sky[row], atol=1e-3
        )


def test_folds_of_a_fist_are_darker_than_an_open_hand(shape: Template) -> None:
    build = average_build()
    frames, _ = pose_bones(build, np.radians([VOCABULARY["five-spread"], VOCABULARY["fist"]]))
    sky = occlusion(*skinned(shape, build).posed(frames), frames, build)
    assert sky.min() >= -1e-5 and sky.max() <= 1
    palm = (shape.bone == PALM) & (shape.dorsal < -0.5)
    back = (shape.bone == PALM) & (shape.dorsal > 0.5)
    assert (
        sky[1, palm].mean() < sky[0, palm].mean() - 0.2
        and sky[1, back].mean() > sky[1, palm].mean() + 0.2
    )


# Keypoints inside


def test_layers_are_counted(shape: Template) -> None:
    inside, outside = shape.vertices - 0.002 * shape.normals, shape.vertices + 0.002 * shape.normals
    some = np.nonzero(shape.vertices[:, 1] > -0.1)[0][::400]
    vertices = shape.vertices.astype(float)
    assert (layers_above(inside[some].astype(float), vertices, shape.faces) == 1).all()
    assert (layers_above(outside[some].astype(float), vertices, shape.faces) == 0).all()


@pytest.mark.slow
def test_keypoints_of_every_key_pose_lie_inside(shape: Template) -> None:
    for number, degrees in enumerate(VOCABULARY.values()):
        build = average_build() if number % 3 == 0 else draw_build(rng(number))
        assert (keypoint_layers(shape, build, np.radians(degrees)) >= 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("drawn", ["random", "limits"])
def test_keypoints_of_random_poses_lie_inside(shape: Template, drawn: str) -> None:
    generator = rng(5)
    for pose in any_poses(30):
        own = random_pose(generator) if drawn == "random" else pose
        # Two layers are where fingers run into each other, which poses drawn from the limits alone
        # may do.
        assert (keypoint_layers(shape, draw_build(generator), own) >= 1).all()
