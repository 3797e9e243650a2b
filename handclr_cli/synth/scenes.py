"""A scene: one person's moving hands before a backdrop, seen at any time by any of its cameras."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from . import motion
from .objects import held_part
from .raster import floats
from .renderer import Lights, PaintedMesh, Rendered, render
from .sensor import develop, motion_kernel
from .shot import LEFT_HAND, RIGHT_HAND, HandTruth, Shot
from .skeleton import Build, draw_build, keypoints, pose_bones
from .skin import Complexion, SkinPaint, draw_complexion
from .skinning import SkinnedMesh, occlusion, skinned
from .sleeve import Sleeve, draw_sleeve
from .template import template
from .worlds import World

_MIRROR = np.array([-1.0, 1.0, 1.0])
# Wrist to middle fingertip of the template, metres.
_HAND_LENGTH = 0.183
# Other cameras look at the same hands from this far around, degrees: yaw and pitch.
_RIG = ((0, 0), (28, 4), (-28, 4), (14, -22), (-14, -22), (50, 8), (-50, 8), (0, 24))
# Backdrops are drawn larger than the frame, so that the camera can pan over them.
_OVERSCAN = 1.3
# Linear albedo of skin that is exposed as it is.
_MIDDLE_TONE = 0.28
# Two hands are this much smaller than one, as they are farther away.
_PAIR_SHARE = 0.85


@dataclass(frozen=True)
class _Hand:
    """One hand's movement: bones and joints in the hand frame, then its place in the world.

    `frames` (T, 17, 4, 4), `joints` (T, 21, 3), `turns` (T, 3, 3), `places` (T, 3).
    """

    side: str
    frames: np.ndarray
    joints: np.ndarray
    turns: np.ndarray
    places: np.ndarray
    grasp: str | None

    @property
    def mirror(self) -> np.ndarray:
        return _mirror(self.side)

    def world_joints(self, time: int) -> np.ndarray:
        return (self.joints[time] * self.mirror) @ self.turns[time].T + self.places[time]


class Scene:
    """One person and one stretch of time in a world; the same arguments give the same pictures.

    `size` (width, height) pixels; `sides` the hands, drawn from the world where it is None;
    `frames` how many moments there are at `fps`. `subject` numbers the person: the same number has
    the same bones and skin.
    """

    def __init__(
        self,
        world: World,
        seed: int,
        index: int,
        size: tuple[int, int],
        sides: tuple[str, ...] | None = None,
        frames: int = 1,
        fps: float = 12.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.world, self.size, self.frames, self.device = world, size, frames, torch.device(device)
        self._seed = (seed, world.number, index)
        rng = self._stream(0)
        self.subject = index if world.subjects is None else index % world.subjects
        self._dress(np.random.default_rng((seed, world.number, 1, self.subject)), rng)
        sides = sides or _draw_sides(world, rng)
        self.intrinsics = _draw_intrinsics(world, size, rng)
        reach = rng.uniform(*world.reach) * (_PAIR_SHARE if len(sides) > 1 else 1.0)
        hand_length = _HAND_LENGTH * self.build.girth[1, 1]
        self._distance = hand_length * self.intrinsics[0, 0] / (reach * min(size))
        self._hands = tuple(self._move(rng, side, sides, reach, fps) for side in sides)
        lights = _draw_lights(world, rng, self.complexion)
        self._lights = Lights(*(floats(value, self.device) for value in lights))
        sensor = world.sensor(rng)
        # Defocus is drawn for pictures of 360 lines.
        self._sensor = replace(sensor, blur_sigma=sensor.blur_sigma * min(size) / 360)
        self._shutter = rng.uniform(*world.shutter)
        self._shake = motion.position_track(rng, frames, fps, np.radians([world.shake] * 3))
        self._backdrops: dict[tuple[int, int], np.ndarray] = {}

    def shoot(self, time: int, camera: int = 0, backdrop: int = 0) -> Shot:
        """Photograph moment `time`, 0..frames-1, by one of 8 cameras before a numbered backdrop."""
        picture = self.render([time], camera)
        intrinsics, extrinsics = self.intrinsics, self._extrinsics(time, camera)
        blur, pan = self._blur(time, camera)
        colour, alpha = picture.colour[0].cpu().numpy(), picture.alpha[0].cpu().numpy()
        layer, kernel = np.dstack([colour, alpha]), motion_kernel(*blur)
        layer = cv2.filter2D(layer, -1, kernel, borderType=cv2.BORDER_REPLICATE)
        behind = self._backdrop(time, camera, backdrop)
        light = layer[..., :3] + behind * (1 - layer[..., 3:])
        image = develop(light, self._sensor, self._stream(3, time, camera, backdrop), pan)
        hands = tuple(
            HandTruth(hand.side, hand.world_joints(time) @ extrinsics[:, :3].T + extrinsics[:, 3])
            for hand in self._hands
        )
        return Shot(image, intrinsics, extrinsics, hands, picture.labels[0].cpu().numpy())

    def render(self, times: list[int], camera: int = 0) -> Rendered:
        """Draw the hands and held objects at several moments, without backdrop and sensor."""
        extrinsics = np.stack([self._extrinsics(time, camera) for time in times])
        parts = [part for hand in self._hands for part in self._parts(hand, times, extrinsics)]
        intrinsics = floats(np.tile(self.intrinsics, (len(times), 1, 1)), self.device)
        key = floats(extrinsics[:, :, :3], self.device) @ self._lights.key
        lights = replace(self._lights, key=key)
        return render(parts, intrinsics, lights, self.size[1], self.size[0])

    def _stream(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng((*self._seed, 2, *numbers))

    def _dress(self, person: np.random.Generator, rng: np.random.Generator) -> None:
        """The person's hand, skin and sleeve."""
        self.build: Build = draw_build(person)
        self.complexion: Complexion = draw_complexion(person, person.uniform(*self.world.tone))
        shape = template()
        self._mesh: SkinnedMesh = skinned(shape, self.build, self.device)
        self._paint = SkinPaint(shape, self.complexion, self.device)
        wears = rng.uniform() < self.world.sleeves
        self._sleeve: Sleeve | None = draw_sleeve(rng, shape, self._mesh) if wears else None

    def _move(
        self, rng: np.random.Generator, side: str, sides: tuple[str, ...], reach: float, fps: float
    ) -> _Hand:
        """Draw one hand's movement so that it stays in the frame."""
        grasp = motion.draw_grasp(rng) if rng.uniform() < self.world.objects else None
        angles = motion.pose_track(rng, self.frames, fps, grasp)
        turns = motion.orientation_track(rng, self.frames, fps, self.world.spread)
        if side == "left":
            # The orientation is that of a right hand; its mirror image has the mirrored one.
            turns = _MIRROR[:, None] * turns * _MIRROR
        frames, joints = pose_bones(self.build, angles)
        joints = keypoints(frames, joints)
        middle = (joints.min(axis=1) + joints.max(axis=1)) / 2
        width, height = self.size
        scale = self._distance / self.intrinsics[0, 0]
        share = 2 if len(sides) > 1 else 1
        length = 1.05 * reach * min(self.size) / (_PAIR_SHARE if share > 1 else 1)
        room = np.array([width / share, height]) - length
        extent = np.append(np.maximum(room, 0.06 * min(self.size)) * scale, 0.16 * self._distance)
        centre = motion.position_track(rng, self.frames, fps, extent) + [0, 0, self._distance]
        if share > 1:
            centre[:, 0] += (-0.25 if side == sides[0] else 0.25) * width * scale
        places = centre - np.einsum("tij,tj->ti", turns, middle * _mirror(side))
        return _Hand(side, frames, joints, turns, places, grasp)

    def _parts(self, hand: _Hand, times: list[int], extrinsics: np.ndarray) -> list[PaintedMesh]:
        """The meshes of one hand in the camera's frame."""
        frames = hand.frames[times]
        vertices, normals = self._mesh.posed(frames)
        open_sky = occlusion(vertices, normals, frames, self.build)
        label = LEFT_HAND if hand.side == "left" else RIGHT_HAND
        parts = [PaintedMesh(vertices, normals, self._mesh.faces, open_sky, self._paint, label)]
        if self._sleeve:
            parts.append(self._sleeve.part(frames))
        if hand.grasp:
            rng = self._stream(4)
            parts.append(held_part(hand.grasp, self.build, len(times), self.device, rng))
        turns = extrinsics[:, :, :3] @ hand.turns[times] * hand.mirror
        places = np.einsum("tij,tj->ti", extrinsics[:, :, :3], hand.places[times])
        places = places + extrinsics[:, :, 3]
        return [_placed(part, turns, places, flip=hand.side == "left") for part in parts]

    def _extrinsics(self, time: int, camera: int) -> np.ndarray:
        """World to camera (3, 4): by the rig's angles around the hands' middle, then the shake."""
        from scipy.spatial.transform import Rotation

        yaw, pitch = _RIG[camera]
        around = Rotation.from_euler("yx", [yaw, pitch], degrees=True).as_matrix()
        pivot = np.array([0, 0, self._distance])
        shake = Rotation.from_rotvec(self._shake[time]).as_matrix()
        return np.column_stack([shake @ around, shake @ (pivot - around @ pivot)])

    def _pixels(self, time: int, camera: int) -> np.ndarray:
        """Where the middle of the hands is in the picture (2)."""
        extrinsics = self._extrinsics(time, camera)
        points = np.concatenate([hand.world_joints(time) for hand in self._hands])
        seen = (points @ extrinsics[:, :3].T + extrinsics[:, 3]).mean(axis=0) @ self.intrinsics.T
        return seen[:2] / seen[2]

    def _blur(self, time: int, camera: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """How far, in pixels, the hands and the whole picture move while the shutter is open."""
        before, after = max(0, time - 1), min(self.frames - 1, time + 1)
        steps = max(1, after - before)
        limit = 0.04 * min(self.size)
        pan = self._shutter * (self._pan(after) - self._pan(before)) / steps
        moved = self._pixels(after, camera) - self._pixels(before, camera)
        hands = self._shutter * moved / steps - pan
        x, y = np.clip(hands, -limit, limit).tolist()
        dx, dy = np.clip(pan, -limit, limit).tolist()
        return (x, y), (dx, dy)

    def _pan(self, time: int) -> np.ndarray:
        """Shift of what is far away by the camera's shake, px."""
        pitch, yaw = self._shake[time, :2]
        return self.intrinsics[0, 0] * np.array([yaw, -pitch])

    def _backdrop(self, time: int, camera: int, number: int) -> np.ndarray:
        """The part of a backdrop that a camera sees at a moment, (H, W, 3) float32."""
        width, height = self.size
        if (camera, number) not in self._backdrops:
            rng = self._stream(5, camera, number)
            drawn = self.world.backdrop(rng, int(width * _OVERSCAN), int(height * _OVERSCAN))
            self._backdrops = {(camera, number): drawn}
        large = self._backdrops[camera, number]
        slack = (np.array(large.shape[1::-1]) - self.size) / 2
        x, y = np.clip(slack - self._pan(time), 0, 2 * slack).tolist()
        shift = np.array([[1.0, 0, x], [0, 1, y]])
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(large, shift, (width, height), flags=how)


def _mirror(side: str) -> np.ndarray:
    """The factors that turn a right hand's points into those of a hand of a side."""
    return _MIRROR if side == "left" else np.ones(3)


def _placed(part: PaintedMesh, turns: np.ndarray, places: np.ndarray, flip: bool) -> PaintedMesh:
    """A part moved from the hand frame to the camera's; `flip` for turns (B, 3, 3) that mirror."""
    turn = floats(turns, part.vertices.device).transpose(1, 2)
    place = floats(places, part.vertices.device)
    return replace(
        part,
        vertices=part.vertices @ turn + place[:, None],
        normals=part.normals @ turn,
        faces=part.faces[:, [0, 2, 1]] if flip else part.faces,
    )


def _draw_sides(world: World, rng: np.random.Generator) -> tuple[str, ...]:
    if rng.uniform() < world.pairs:
        # Left of the picture first: one's own hands, or now and then a person's opposite.
        return ("left", "right") if rng.uniform() < 0.6 else ("right", "left")
    return ("right",) if rng.uniform() < 0.5 else ("left",)


def _draw_intrinsics(world: World, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    focal = 0.5 * min(size) / np.tan(np.radians(rng.uniform(*world.field)) / 2)
    return np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])


def _draw_lights(
    world: World, rng: np.random.Generator, complexion: Complexion
) -> tuple[np.ndarray, ...]:
    """The fields of Lights: a key from above or beside the camera, and ambient light."""
    toward = np.array([rng.uniform(-0.9, 0.9), rng.uniform(-1.0, -0.1), rng.uniform(-1.0, -0.25)])
    warm = 1 + world.colour * rng.normal(0, 1) * np.array([1.0, 0.1, -1.0])
    # Cameras and those who hold them expose for the hand, up to a point.
    tone = float(np.mean(complexion.back**2.2))
    exposure = np.clip((_MIDDLE_TONE / tone) ** 0.4, 0.85, 2.0)
    key, ambient = exposure * rng.uniform(*world.key), exposure * rng.uniform(*world.ambient)
    ground = rng.uniform(0.35, 0.8) * (1 + world.colour * rng.normal(0, 1, 3))
    return toward, key * warm, ambient * (2 - warm), ambient * ground
