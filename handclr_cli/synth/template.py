"""The skin of the template hand: a closed mesh around the bones, and its binding to them.

The surface is the zero set of round cones joined by smooth minima, meshed by surface nets (Gibson
1998) and bound to the bones for dual quaternion skinning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ..hand.joints import FINGERS
from .skeleton import BONES, FOREARM, PALM, THUMB, average_build, phalanx, pose_bones, rest_pose

# Metres between samples of the distance field; the forearm's grow with the distance from the wrist.
_CELL = 0.0026
_ARM_END = -0.75
# Radii in metres at the joints of each finger, base to tip (thumb: CMC, MCP, IP, tip).
RADII = np.array(
    [
        [0.0125, 0.0108, 0.0099, 0.0080],
        [0.0098, 0.0089, 0.0077, 0.0066],
        [0.0101, 0.0092, 0.0079, 0.0068],
        [0.0096, 0.0087, 0.0075, 0.0065],
        [0.0086, 0.0075, 0.0066, 0.0057],
    ]
)
# The flesh ends this far beyond the last cone, so that the fingertip joint lies inside.
_TIP_SETBACK = 0.0035
# Cones of the palm: ends, then radii.
_PALM_CONES = np.array(
    [
        [-0.0130, 0.0080, -0.0010, -0.0235, 0.0865, -0.0025, 0.0135, 0.0118],
        [-0.0045, 0.0060, 0.0000, -0.0025, 0.0905, -0.0010, 0.0140, 0.0120],
        [0.0050, 0.0060, 0.0000, 0.0170, 0.0855, -0.0020, 0.0138, 0.0116],
        [0.0130, 0.0060, -0.0010, 0.0335, 0.0750, -0.0055, 0.0130, 0.0104],
        # thenar and hypothenar eminence
        [-0.0110, 0.0200, -0.0110, -0.0330, 0.0540, -0.0150, 0.0140, 0.0105],
        [-0.0200, 0.0190, -0.0100, -0.0420, 0.0420, -0.0200, 0.0125, 0.0110],
        [0.0170, 0.0160, -0.0080, 0.0320, 0.0560, -0.0090, 0.0135, 0.0110],
        # webs: thumb to index, then between the fingers
        [-0.0380, 0.0460, -0.0150, -0.0245, 0.0720, -0.0050, 0.0068, 0.0080],
        [-0.0140, 0.0940, -0.0020, -0.0140, 0.1010, -0.0030, 0.0085, 0.0058],
        [0.0075, 0.0930, -0.0020, 0.0080, 0.1010, -0.0030, 0.0085, 0.0058],
        [0.0270, 0.0850, -0.0030, 0.0290, 0.0920, -0.0040, 0.0080, 0.0055],
    ]
)
_ARM_CONES = np.array(
    [
        [-0.0085, -0.0060, 0.0000, -0.0110, -0.0900, 0.0000, 0.0165, 0.0225],
        [0.0085, -0.0060, 0.0000, 0.0110, -0.0900, 0.0000, 0.0165, 0.0225],
        [-0.0110, -0.0900, 0.0000, -0.0130, -0.8000, 0.0000, 0.0230, 0.0480],
        [0.0110, -0.0900, 0.0000, 0.0130, -0.8000, 0.0000, 0.0230, 0.0480],
    ]
)
# Width of the blend between two bones' skin, metres.
_BLEND = 0.0055
_THUMB = phalanx(THUMB, 0)


@dataclass(frozen=True)
class Template:
    """The template's mesh and binding.

    `vertices` (V, 3) float32 metres in the hand frame at rest, `normals` (V, 3) float32 unit,
    `faces` (F, 3) int64 counter-clockwise seen from outside, `weights` (V, 17) float32 that sum to
    one, `bone` (V) int64 the heaviest, `local` (V, 3) float32 coordinates in that bone's rest
    frame, `dorsal` (V) float32 in -1..1, how much the skin faces the back of its bone; `frames`
    (17, 4, 4) float64 the bones at rest.
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    bone: np.ndarray
    local: np.ndarray
    dorsal: np.ndarray
    frames: np.ndarray


@lru_cache(maxsize=1)
def template() -> Template:
    """Make the template (about half a second, once a process)."""
    axes = (
        np.arange(-0.104, 0.074, _CELL),
        np.concatenate([_arm_samples(), np.arange(-0.02, 0.200, _CELL)]),
        np.arange(-0.058, 0.040, _CELL),
    )
    field = distance_field(axes)
    vertices, faces = surface_net(field, axes)
    normals = _gradient(field, axes, vertices)
    build = average_build()
    frames, joints = pose_bones(build, rest_pose())
    weights = _weights(vertices, joints[0], faces)
    bone = weights.argmax(axis=1)
    offset = vertices - frames[0, bone, :3, 3]
    local = np.einsum("vij,vi->vj", frames[0, bone, :3, :3], offset)
    backs = np.einsum("vb,bi->vi", weights, frames[0, :, :3, 2])
    dorsal = np.einsum("vi,vi->v", backs, normals)
    return Template(
        vertices.astype(np.float32),
        normals.astype(np.float32),
        faces,
        weights.astype(np.float32),
        bone,
        local.astype(np.float32),
        dorsal.astype(np.float32),
        frames[0],
    )


def distance_field(axes: tuple[np.ndarray, ...]) -> np.ndarray:
    """Signed distances in metres, negative inside, of the template at rest on a grid.

    `axes` are the grid's three coordinate axes.
    """
    frames, joints = pose_bones(average_build(), rest_pose())
    field = _cones(_PALM_CONES, axes, 0.0055)
    field = _smooth_min(field, _cones(_ARM_CONES, axes, 0.005), 0.010)
    for finger, row in enumerate(FINGERS.values()):
        chain = joints[0, row].copy()
        tip = chain[3] - chain[2]
        chain[3] -= tip / np.linalg.norm(tip) * _TIP_SETBACK
        radii = RADII[finger]
        cones = [np.concatenate([chain[i], chain[i + 1], radii[i : i + 2]]) for i in range(3)]
        cones += _pads(finger, chain, frames[0])
        # The thumb's base is wrapped in muscle; the fingers leave the palm more sharply.
        width = 0.012 if finger == THUMB else 0.006
        field = _smooth_min(field, _cones(np.array(cones), axes, 0.0016), width)
    return field


def _pads(finger: int, chain: np.ndarray, frames: np.ndarray) -> list[np.ndarray]:
    """The soft flesh on the palm side of each phalanx, and the bony knuckle at its base."""
    cones = []
    for number, (share, depth) in enumerate(((0.55, 0.0022), (0.5, 0.0014), (0.62, 0.0012))):
        if finger == THUMB and number == 0:
            continue
        back = frames[phalanx(finger, number), :3, 2]
        start, end = chain[number], chain[number + 1]
        radius = RADII[finger, number] * (1 - share) + RADII[finger, number + 1] * share
        middle = start + (end - start) * share - back * depth
        along = (end - start) * 0.18
        cones.append(np.concatenate([middle - along, middle + along, [radius * 0.93] * 2]))
    if finger != THUMB:
        knuckle = chain[0] + frames[phalanx(finger, 0), :3, 2] * 0.0035
        radius = RADII[finger, 0] * 0.82
        cones.append(np.concatenate([knuckle, knuckle + [0, 0.001, 0], [radius] * 2]))
    return cones


def _arm_samples() -> np.ndarray:
    """Samples of the forearm, farther apart towards the elbow: the arm is nearly a cylinder."""
    samples = -0.02 - np.cumsum(_CELL * np.linspace(1.0, 9.0, 62))
    return samples[samples > _ARM_END][::-1]


def _cones(cones: np.ndarray, axes: tuple[np.ndarray, ...], blend: float) -> np.ndarray:
    """Distances to a group of round cones (N, 8), joined by a log-sum-exp of width `blend`."""
    shape = tuple(len(axis) for axis in axes)
    total = np.zeros(shape, np.float32)
    for start, end, (first, second) in zip(cones[:, :3], cones[:, 3:6], cones[:, 6:], strict=True):
        reach = 12 * blend + max(first, second) + 0.006
        low, high = np.minimum(start, end) - reach, np.maximum(start, end) + reach
        bounds = [np.searchsorted(axis, (low[i], high[i])) for i, axis in enumerate(axes)]
        box = tuple(slice(first_cell, last_cell) for first_cell, last_cell in bounds)
        inner = [axis[part] for axis, part in zip(axes, box, strict=True)]
        points = np.stack(np.meshgrid(*inner, indexing="ij"), axis=-1)
        distance = cone_distance(points.astype(np.float32), start, end, first, second)
        total[box] += np.exp(-distance / blend)
    far = np.float32(np.exp(-12.0))
    return -blend * np.log(np.maximum(total, far))


def cone_distance(
    points: np.ndarray, start: np.ndarray, end: np.ndarray, first: float, second: float
) -> np.ndarray:
    """Distances (...) in metres from points (..., 3) to a capsule of radius `first` to `second`."""
    axis = (end - start).astype(points.dtype)
    offset = points - start.astype(points.dtype)
    share = np.clip(offset @ axis / np.float32(axis @ axis), 0, 1)
    across = offset - share[..., None] * axis
    radius = (first + (second - first) * share).astype(points.dtype)
    return np.sqrt((across * across).sum(axis=-1)) - radius


def _smooth_min(first: np.ndarray, second: np.ndarray, width: float) -> np.ndarray:
    """The quadratic smooth minimum: the minimum where the two differ by more than `width`."""
    share = np.maximum(width - np.abs(first - second), 0) / width
    return np.minimum(first, second) - share * share * np.float32(width / 4)


def surface_net(field: np.ndarray, axes: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mesh the zero set of a field on a rectilinear grid: one vertex in each cell it crosses.

    Returns vertices (V, 3) float64 and triangles (F, 3) int64, counter-clockwise seen from where
    the field is positive.
    """
    inside = field < 0
    sums, counts = _edge_crossings(field, inside, axes)
    cells = counts > 0
    number = np.full(cells.shape, -1, np.int64)
    number[cells] = np.arange(int(cells.sum()))
    vertices = sums[cells] / counts[cells][:, None]
    quads = np.concatenate([_quads(inside, number, axis) for axis in range(3)])
    return vertices, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _quads(inside: np.ndarray, number: np.ndarray, axis: int) -> np.ndarray:
    """The four vertices (N, 4) around each edge along an axis that the surface crosses.

    `inside` tells of each sample of the field whether it is inside, `number` is the vertex of each
    cell.
    """
    second, third = (axis + 1) % 3, (axis + 2) % 3
    here, there = _pair(inside, axis)
    # An edge on the rim of the grid has no four cells around it.
    trim: list[slice] = [slice(None)] * 3
    trim[second] = trim[third] = slice(1, -1)
    where = np.argwhere((here != there)[tuple(trim)])
    where[:, [second, third]] += 1
    corners = []
    for step in ((1, 1), (0, 1), (0, 0), (1, 0)):
        cell = where.copy()
        cell[:, second] -= step[0]
        cell[:, third] -= step[1]
        corners.append(number[tuple(cell.T)])
    quads = np.stack(corners, axis=1)
    leaves = here[tuple(where.T)]
    return np.where(leaves[:, None], quads, quads[:, ::-1])


def _pair(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    head: list[slice] = [slice(None)] * 3
    tail = head.copy()
    head[axis], tail[axis] = slice(None, -1), slice(1, None)
    return values[tuple(head)], values[tuple(tail)]


def _edge_crossings(
    field: np.ndarray, inside: np.ndarray, axes: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """For each cell the sum (..., 3) of points where its edges cross the surface, and the count."""
    shape = tuple(length - 1 for length in field.shape)
    sums, counts = np.zeros((*shape, 3)), np.zeros(shape)
    for axis in range(3):
        here, there = _pair(inside, axis)
        where = np.argwhere(here != there)
        low, high = _pair(field, axis)
        at = tuple(where.T)
        share = low[at] / (low[at] - high[at])
        points = np.stack([axes[other][where[:, other]] for other in range(3)], axis=1)
        points[:, axis] += share * (axes[axis][where[:, axis] + 1] - axes[axis][where[:, axis]])
        for step in range(4):
            cell = where.copy()
            cell[:, (axis + 1) % 3] -= step & 1
            cell[:, (axis + 2) % 3] -= step >> 1
            valid = ((cell >= 0) & (cell < shape)).all(axis=1)
            index = tuple(cell[valid].T)
            np.add.at(sums, index, points[valid])
            np.add.at(counts, index, 1)
    return sums, counts


def _gradient(field: np.ndarray, axes: tuple[np.ndarray, ...], points: np.ndarray) -> np.ndarray:
    """Unit gradients (N, 3) of a sampled field at points, by trilinear interpolation."""
    slopes = np.stack(np.gradient(field, *axes), axis=-1)
    cell, share = [], []
    for axis, place in zip(axes, points.T, strict=True):
        low = np.clip(np.searchsorted(axis, place) - 1, 0, len(axis) - 2)
        cell.append(low)
        share.append((place - axis[low]) / (axis[low + 1] - axis[low]))
    normals = np.zeros_like(points)
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod([share[i] if corner[i] else 1 - share[i] for i in range(3)], axis=0)
        normals += weight[:, None] * slopes[tuple(cell[i] + corner[i] for i in range(3))]
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def _weights(vertices: np.ndarray, joints: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Bind vertices to bones near them: a softmax of squared distances, smoothed on the mesh."""
    distance = np.full((len(vertices), len(BONES)), np.inf)
    for bone, start, end in _segments(joints):
        one = cone_distance(vertices, np.asarray(start), np.asarray(end), 0.0, 0.0)
        distance[:, bone] = np.minimum(distance[:, bone], one)
    nearest = distance.min(axis=1, keepdims=True)
    weights = np.exp((nearest**2 - distance**2) / (2 * _BLEND**2))
    weights /= weights.sum(axis=1, keepdims=True)
    weights = _spread(weights, faces, 4)
    # The thumb's metacarpal moves deep inside the thenar's muscle: its skin gives way over a wide
    # area.
    both = weights[:, [PALM, _THUMB]].sum(axis=1)
    share = weights[:, _THUMB] / np.maximum(both, 0.05)
    share = _spread(share[:, None], faces, 25)[:, 0]
    weights[:, _THUMB], weights[:, PALM] = both * share, both * (1 - share)
    weights[weights < 0.004] = 0
    return weights / weights.sum(axis=1, keepdims=True)


def _segments(joints: np.ndarray) -> list[tuple[int, Sequence[float], Sequence[float]]]:
    """Bones as line segments, each with its number and its two ends; the palm has four."""
    segments: list[tuple[int, Sequence[float], Sequence[float]]]
    segments = [(FOREARM, [0, -0.80, 0], [0, -0.004, 0])]
    for finger, chain in enumerate(FINGERS.values()):
        if finger != THUMB:
            knuckle = joints[chain[0]]
            segments.append((PALM, [0.8 * knuckle[0], 0.012, 0], knuckle))
    for finger, chain in enumerate(FINGERS.values()):
        for number, (start, end) in enumerate(pairwise(chain)):
            segments.append((phalanx(finger, number), joints[start], joints[end]))
    return segments


def _spread(values: np.ndarray, faces: np.ndarray, rounds: int) -> np.ndarray:
    """Smooth values (V, C) on the mesh: a round takes each half-way to its neighbours' mean."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    degree = np.bincount(edges[:, 0], minlength=len(values))[:, None]
    for _ in range(rounds):
        drawn = values[edges[:, 1]].T
        sums = [np.bincount(edges[:, 0], weights=column, minlength=len(values)) for column in drawn]
        values = 0.5 * values + 0.5 * np.stack(sums, axis=1) / degree
    return values
