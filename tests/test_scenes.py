"""Pictures and their truth agree: points, labels and cameras; left hands are right ones in a
mirror.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mesh_layers import layers_above

from handclr_cli.hand.camera import project
from handclr_cli.synth import scenes
from handclr_cli.synth.raster import Fragments, floats
from handclr_cli.synth.renderer import Lights, PaintedMesh, Rendered, render
from handclr_cli.synth.scenes import Scene
from handclr_cli.synth.shot import Shot
from handclr_cli.synth.worlds import LAB, WILD, WORLDS, World

pytestmark = pytest.mark.slow

SIZE = (128, 96)
LABELS = {"left": 254, "right": 255}
BARE = replace(WILD, sleeves=0.0, objects=0.0, pairs=0.0, shutter=(0.0, 0.0))
FULL = replace(WILD, sleeves=1.0, objects=1.0, pairs=1.0)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What scenes hand to the renderer, as they do."""
    calls: list[dict[str, Any]] = []

    def spy(
        parts: list[PaintedMesh], intrinsics: torch.Tensor, lights: Lights, height: int, width: int
    ) -> Rendered:
        calls.append({"parts": parts, "intrinsics": intrinsics, "lights": lights})
        return render(parts, intrinsics, lights, height, width)

    monkeypatch.setattr(scenes, "render", spy)
    return calls


def same(first: Shot, second: Shot) -> bool:
    return (
        np.array_equal(first.image, second.image)
        and np.array_equal(first.segmentation, second.segmentation)
        and np.array_equal(first.intrinsics, second.intrinsics)
        and np.array_equal(first.extrinsics, second.extrinsics)
        and all(
            np.array_equal(a.keypoints3d, b.keypoints3d)
            for a, b in zip(first.hands, second.hands, strict=True)
        )
    )


# The renderer


def sheet(depth: float, low: float, high: float, label: int, shade: float) -> PaintedMesh:
    """A square of one colour across the view, in 12 x 12 cells: light and shadow are felt at
    vertices.
    """

    def paint(seen: Fragments, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert (seen.face >= 0).all() and (seen.face < len(faces)).all()
        return torch.full((len(seen.face), 3), shade), torch.zeros(len(seen.face))

    x, y = np.meshgrid(np.linspace(low, high, 13), np.linspace(low, high, 13))
    vertices = floats(np.stack([x, y, np.full_like(x, depth)], axis=-1).reshape(1, -1, 3), "cpu")
    number = torch.arange(169).reshape(13, 13)
    a, b, c, d = (
        part.reshape(-1)
        for part in (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:])
    )
    faces = torch.cat([torch.stack([a, b, c], dim=1), torch.stack([a, c, d], dim=1)])
    normals = torch.tensor([0.0, 0.0, -1.0]).expand_as(vertices)
    return PaintedMesh(vertices, normals, faces, torch.ones_like(vertices[..., 0]), paint, label)


def plain_lights(key: tuple[float, float, float] = (0.0, 0.0, -1.0)) -> Lights:
    return Lights(
        torch.tensor([key]), torch.full((3,), 0.8), torch.full((3,), 0.4), torch.full((3,), 0.2)
    )


CAMERA = torch.tensor([[[40.0, 0, 20], [0, 40.0, 16], [0, 0, 1]]])


def test_coverage_and_labels_of_a_sheet() -> None:
    # 0.125 m at 1 m is 5 px: 15..25 by 11..21.
    picture = render([sheet(1.0, -0.125, 0.125, 255, 0.5)], CAMERA, plain_lights(), 32, 40)
    expected = torch.zeros(32, 40)
    expected[11:21, 15:25] = 1
    assert torch.equal(picture.alpha[0], expected) and torch.equal(
        picture.labels[0], (255 * expected).to(torch.uint8)
    )
    assert picture.labels.dtype == torch.uint8
    colours = picture.colour[0][expected > 0]
    assert (
        (colours > 0.2).all()
        and (colours <= 1).all()
        and not picture.colour[0][expected == 0].any()
    )
    # Half a pixel less on each side: the rim is covered by half, the corners by a quarter.
    picture = render([sheet(1.0, -0.1125, 0.1125, 255, 0.5)], CAMERA, plain_lights(), 32, 40)
    assert set(picture.alpha.unique().tolist()) == {0.0, 0.25, 0.5, 1.0}
    assert (picture.labels[picture.alpha == 0.25] == 0).all() and (
        picture.labels[picture.alpha >= 0.5] == 255
    ).all()


def test_what_is_in_front_hides_and_shades_what_is_behind() -> None:
    back, front = sheet(1.0, -0.25, 0.25, 255, 0.9), sheet(0.8, -0.05, 0.05, 1, 0.02)
    picture = render([back, front], CAMERA, plain_lights(), 32, 40)
    assert picture.labels[0, 16, 20] == 1 and picture.labels[0, 16, 28] == 255
    assert picture.colour[0, 16, 20].max() < picture.colour[0, 16, 28].min() / 2
    swapped = render([front, back], CAMERA, plain_lights(), 32, 40)
    assert torch.equal(swapped.labels, picture.labels)
    np.testing.assert_allclose(swapped.colour, picture.colour, atol=1e-6)
    # Light from the left throws the front sheet's shadow to the right: 0.2 m, which is 8 px, at 1
    # m.
    row = render([back, front], CAMERA, plain_lights((-1.0, 0.0, -1.0)), 32, 40).colour[0, 16, :, 0]
    assert row[26:29].max() < 0.8 * row[12:16].min()


def test_light_from_behind_and_from_the_side_is_weaker() -> None:
    part = sheet(1.0, -0.125, 0.125, 255, 0.5)
    shades = [
        float(render([part], CAMERA, plain_lights(key), 32, 40).colour[0, 16, 20, 0])
        for key in ((0.0, 0.0, -1.0), (0.9, 0.0, -0.3), (0.0, 0.0, 1.0))
    ]
    assert shades[0] > shades[1] + 0.05 and shades[1] > shades[2] + 0.05 and shades[2] > 0


@pytest.mark.parametrize("shift", [(3.0, 0.0, 0.0), (0.0, -3.0, 0.0), (0.0, 0.0, -2.0)])
def test_nothing_in_view(shift: tuple[float, float, float]) -> None:
    part = sheet(1.0, -0.125, 0.125, 255, 0.5)
    picture = render(
        [replace(part, vertices=part.vertices + torch.tensor(shift))],
        CAMERA,
        plain_lights(),
        32,
        40,
    )
    assert not picture.alpha.any() and not picture.colour.any() and not picture.labels.any()


# Truth


@pytest.mark.parametrize("side", ["left", "right"])
def test_keypoints_lie_inside_what_is_drawn(side: str, drawn: list[dict[str, Any]]) -> None:
    for index in range(6):
        shot = Scene(BARE, 3, index, SIZE, (side,)).shoot(0, index)
        (part,) = drawn.pop()["parts"]
        assert part.label == LABELS[side]
        # A surface turned inside out would be counted with the other sign.
        axes = palm_axes(shot.hands[0].keypoints3d)
        surface = part.vertices[0].double().numpy() @ axes
        assert (
            layers_above(shot.hands[0].keypoints3d @ axes, surface, part.faces.numpy()) >= 1
        ).all()


def palm_axes(keypoints: np.ndarray) -> np.ndarray:
    """A rotation (3, 3), axes as columns: across the palm, from the wrist to the middle finger's
    base, out of it.
    """
    along = keypoints[9] - keypoints[0]
    along = along / np.linalg.norm(along)
    across = np.cross(along, np.cross(keypoints[17] - keypoints[5], along))
    across = across / np.linalg.norm(across)
    return np.stack([across, along, np.cross(across, along)], axis=1)


@pytest.mark.parametrize("world", [BARE, replace(LAB, sleeves=0.0)], ids=["wild", "lab"])
def test_keypoints_fall_on_their_hands_label(world: World) -> None:
    seen = 0
    for index in range(8):
        side = ("left", "right")[index % 2]
        shot = Scene(world, 1, index, SIZE, (side,)).shoot(0)
        (hand,) = shot.hands
        assert (
            hand.side == side
            and hand.keypoints3d.shape == (21, 3)
            and hand.keypoints3d.dtype == np.float64
        )
        place = np.floor(project(hand.keypoints3d, shot.intrinsics)).astype(int)
        inside = ((place >= 0) & (place < SIZE)).all(axis=1)
        seen += inside.sum()
        assert (shot.segmentation[place[inside, 1], place[inside, 0]] == LABELS[side]).mean() > 0.95
        assert set(np.unique(shot.segmentation)) <= {0, LABELS[side]}
    assert seen > 0.8 * 8 * 21


def test_a_full_scene_has_only_the_known_labels() -> None:
    found: set[int] = set()
    for index in range(4):
        shot = Scene(FULL, 2, index, SIZE, frames=2).shoot(1)
        assert shot.image.shape == (96, 128, 3) and shot.image.dtype == np.uint8
        assert shot.segmentation.shape == (96, 128) and shot.segmentation.dtype == np.uint8
        found |= set(np.unique(shot.segmentation).tolist())
        assert sorted(hand.side for hand in shot.hands) == ["left", "right"]
        middles = [project(hand.keypoints3d, shot.intrinsics)[:, 0].mean() for hand in shot.hands]
        assert middles[0] < middles[1], "the first hand is the one on the picture's left"
    assert found == {0, 1, 254, 255}


def test_all_cameras_see_one_world() -> None:
    scene = Scene(replace(FULL, shake=2.5), 5, 0, SIZE, frames=8)
    for time in (0, 7):
        shots = [scene.shoot(time, camera) for camera in (range(8) if time else (0, 5))]
        turns = np.stack([shot.extrinsics[:, :3] for shot in shots])
        np.testing.assert_allclose(
            turns @ turns.swapaxes(1, 2), np.broadcast_to(np.eye(3), turns.shape), atol=1e-12
        )
        np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-12)
        worlds = np.stack(
            [
                [(h.keypoints3d - s.extrinsics[:, 3]) @ s.extrinsics[:, :3] for h in s.hands]
                for s in shots
            ]
        )
        np.testing.assert_allclose(worlds, np.broadcast_to(worlds[0], worlds.shape), atol=1e-12)
        assert len({shot.extrinsics.tobytes() for shot in shots}) == len(shots)
        assert all(np.array_equal(shot.intrinsics, scene.intrinsics) for shot in shots)
        for shot in shots:
            pixels = project(np.stack([hand.keypoints3d for hand in shot.hands]), shot.intrinsics)
            assert ((pixels > 0) & (pixels < SIZE)).mean() > 0.5


def test_another_backdrop_is_another_picture_with_the_same_labels() -> None:
    scene = Scene(FULL, 6, 1, SIZE)
    first, other = scene.shoot(0), scene.shoot(0, backdrop=1)
    assert np.array_equal(first.segmentation, other.segmentation)
    background = first.segmentation == 0
    changed = np.abs(first.image.astype(int) - other.image).mean(axis=-1)
    assert changed[background].mean() > 10
    assert all(
        np.array_equal(a.keypoints3d, b.keypoints3d)
        for a, b in zip(first.hands, other.hands, strict=True)
    )


# Same seed, same picture


@pytest.mark.parametrize("name", WORLDS)
def test_the_same_arguments_give_the_same_pictures_in_any_order(name: str) -> None:
    scene, again = (Scene(WORLDS[name], 0, 3, SIZE, frames=2) for _ in range(2))
    shots = [
        scene.shoot(time, camera, number)
        for time, camera, number in ((0, 0, 0), (1, 2, 1), (1, 0, 0))
    ]
    for (time, camera, number), shot in zip(
        ((1, 0, 0), (1, 2, 1), (0, 0, 0)), reversed(shots), strict=True
    ):
        assert same(again.shoot(time, camera, number), shot)
    for other in (
        Scene(WORLDS[name], 1, 3, SIZE, frames=2),
        Scene(WORLDS[name], 0, 4, SIZE, frames=2),
    ):
        assert not np.array_equal(other.shoot(0).image, shots[0].image)


def test_people_of_the_studio_come_back() -> None:
    first, again, other = (Scene(LAB, 0, index, SIZE) for index in (1, 7, 2))
    assert first.subject == again.subject == 1 and other.subject == 2
    assert np.array_equal(first.build.lengths, again.build.lengths)
    assert np.array_equal(first.complexion.back, again.complexion.back)
    assert not np.array_equal(first.build.lengths, other.build.lengths)
    assert [Scene(WILD, 0, index, SIZE).subject for index in (1, 7)] == [1, 7]


@pytest.mark.parametrize("world", [LAB, FULL], ids=["lab", "full"])
def test_a_batch_is_drawn_as_each_moment_alone(world: World) -> None:
    scene = Scene(world, 3, 4, SIZE, frames=4)
    times = [3, 0, 2]
    together = scene.render(times)
    assert together.alpha.sum() > 500
    for row, time in enumerate(times):
        alone = scene.render([time])
        np.testing.assert_allclose(together.colour[row], alone.colour[0], atol=1e-5)
        assert torch.equal(together.alpha[row], alone.alpha[0]) and torch.equal(
            together.labels[row], alone.labels[0]
        )


# Left and right


def in_a_mirror(call: dict[str, Any]) -> Rendered:
    """The renderer's picture of everything mirrored, the light too."""
    flip = torch.tensor([-1.0, 1.0, 1.0])
    parts = [
        replace(
            part,
            vertices=part.vertices * flip,
            normals=part.normals * flip,
            faces=part.faces[:, [0, 2, 1]],
        )
        for part in call["parts"]
    ]
    lights = replace(call["lights"], key=call["lights"].key * flip)
    return render(parts, call["intrinsics"], lights, SIZE[1], SIZE[0])


def nearly_equal(first: Rendered, second: Rendered) -> bool:
    """Up to rounding, which decides the pixels on an edge."""
    labels = (first.labels != second.labels).float().mean()
    apart = (first.colour - second.colour).abs().amax(dim=-1)
    return bool(labels < 1e-3 and apart.mean() < 5e-5 and (apart > 0.02).float().mean() < 1e-3)


def flipped(picture: Rendered) -> Rendered:
    return Rendered(picture.colour.flip(2), picture.alpha.flip(2), picture.labels.flip(2))


def test_a_mirrored_scene_is_the_flipped_picture(drawn: list[dict[str, Any]]) -> None:
    for index in range(4):
        picture = Scene(FULL, 8, index, SIZE).render([0])
        assert picture.alpha.mean() > 0.05 and not nearly_equal(picture, flipped(picture))
        assert nearly_equal(flipped(picture), in_a_mirror(drawn.pop()))


def test_a_left_hand_is_a_right_hand_in_a_mirror(drawn: list[dict[str, Any]]) -> None:
    world = replace(BARE, shake=0.0, sleeves=1.0)
    for index in range(3):
        hands = {}
        for side in ("right", "left"):
            shot = Scene(world, 9, index, SIZE, (side,)).shoot(0)
            parts = drawn.pop()["parts"]
            points = [part.vertices[0].double().numpy() for part in parts] + [
                shot.hands[0].keypoints3d
            ]
            hands[side] = np.concatenate(points), [part.faces for part in parts]
        moved = hands["left"][0] * [-1, 1, 1] - hands["right"][0]
        # Both are placed by a draw of their own mirror image: what is left is one shift of the
        # whole.
        np.testing.assert_allclose(moved, np.broadcast_to(moved[-21], moved.shape), atol=2e-6)
        for left, right in zip(hands["left"][1], hands["right"][1], strict=True):
            assert torch.equal(left, right[:, [0, 2, 1]])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("world", [LAB, FULL], ids=["lab", "full"])
def test_the_gpu_draws_the_same(world: World) -> None:
    here, there = (
        Scene(world, 0, 2, SIZE, device=device).render([0]) for device in ("cpu", "cuda")
    )
    assert nearly_equal(here, Rendered(there.colour.cpu(), there.alpha.cpu(), there.labels.cpu()))
