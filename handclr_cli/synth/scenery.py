"""Scenes composed at random of simple things: rooms, tables, streets, shelves, walls, cloths."""

from __future__ import annotations

import math

import cv2
import numpy as np

from .painting import (
    Canvas,
    Colour,
    any_colour,
    any_material,
    hsv,
    leaves,
    mottle,
    noise,
    plaster,
    ramp,
    rgb,
    stone,
    tiles,
    weave,
    wood,
)


def draw_scene(c: Canvas) -> None:
    """Paint one of the scenes, drawn at random, all over a canvas."""
    _SCENES[c.rng.choice(len(_SCENES), p=_CHANCES)](c)


def _writing(c: Canvas, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    """Lines of words that cannot be read."""
    pitch = c.rng.uniform(0.02, 0.05)
    for y in np.arange(y0 + pitch, y1 - pitch / 2, pitch)[:24]:
        gaps = np.cumsum(c.rng.uniform(0.02, 0.08, 40)) + x0
        for start, end in zip(gaps[:-1:2], gaps[1::2], strict=True):
            if end < x1 - 0.02:
                c.line([(start, y), (end, y)], colour, 0.25 * pitch)


def _thing(c: Canvas, x: float, y: float, size: float) -> None:
    """Draw a box, a jar, a bottle or a book that stands at (x, y), with its shadow."""
    rng = c.rng
    base = np.array(c.colour())
    wide, tall = size * rng.uniform(0.25, 0.8), size * rng.uniform(0.4, 1.2)
    c.disc(x + 0.3 * wide, y, 0.8 * wide, 0.12 * size, rgb(base * 0.25))
    if rng.random() < 0.5:
        side, lift = wide * rng.uniform(0.2, 0.6), wide * rng.uniform(0.1, 0.3)
        c.box(x - wide / 2, y - tall, x + wide / 2, y, rgb(base))
        right, top = x + wide / 2, y - tall
        c.fill(
            [(right, top), (right + side, top - lift), (right + side, y - lift), (right, y)],
            rgb(base * 0.6),
        )
        c.fill(
            [
                (x - wide / 2, top),
                (right, top),
                (right + side, top - lift),
                (x - wide / 2 + side, top - lift),
            ],
            rgb(base * 1.3),
        )
        if rng.random() < 0.5:
            _writing(c, x - wide / 2, top + 0.2 * tall, right, y - 0.2 * tall, c.colour())
        return
    for strip, factor in enumerate((0.6, 0.9, 1.15, 1.0, 0.8, 0.5)):
        left = x - wide / 2 + wide * strip / 6
        c.box(left, y - tall, left + wide / 6, y, rgb(base * factor))
    c.disc(x, y, wide / 2, wide / 8, rgb(base * 0.8))
    c.disc(x, y - tall, wide / 2, wide / 8, rgb(base * rng.uniform(0.3, 1.4)))


def _sheet(c: Canvas, x: float, y: float, size: float) -> None:
    """Draw a paper, a book, a plate or a phone around (x, y), seen from above."""
    rng = c.rng
    if rng.random() < 0.3:
        base = np.array(c.colour(1.2))
        for radius, factor in ((1.08, 0.5), (1.0, 1.0), (0.7, 0.88), (0.66, 1.05)):
            c.disc(x, y, size / 2 * radius, size / 2 * radius, rgb(base * factor))
        return
    turn, wide = rng.uniform(0, math.pi), size * rng.uniform(0.2, 0.5)
    along = np.array([math.cos(turn), math.sin(turn)])
    aside = np.array([-math.sin(turn), math.cos(turn)])
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (size / 2, wide)
    corners = square[:, :1] * along + square[:, 1:] * aside + (x, y)
    base = np.array(c.colour())
    c.fill(corners + 0.02 * size, rgb(base * 0.2))
    c.fill(corners, rgb(base))
    for row in np.linspace(-0.8, 0.8, rng.integers(2, 16)) * wide:
        start, end = np.sort(rng.uniform(-0.45, 0.45, 2)) * size
        c.line(
            [(x, y) + start * along + row * aside, (x, y) + end * along + row * aside],
            rgb(base * 0.5),
            0.006,
        )


def _window(c: Canvas, x0: float, y0: float, x1: float, y1: float) -> None:
    frame = c.colour()
    outside = hsv(c.rng.uniform(0.5, 0.65), c.rng.uniform(0, 0.3), c.rng.uniform(0.6, 1))
    c.box(x0 - 0.02, y0 - 0.02, x1 + 0.02, y1 + 0.02, frame)
    c.box(x0, y0, x1, y1, outside)
    c.box(x0, y0 + c.rng.uniform(0.4, 0.9) * (y1 - y0), x1, y1, c.colour())
    for k in range(1, int(c.rng.integers(2, 4))):
        c.line([(x0 + k * (x1 - x0) / 3, y0), (x0 + k * (x1 - x0) / 3, y1)], frame, 0.015)


def _shelf(c: Canvas, x0: float, x1: float, y: float, gap: float) -> None:
    """A board at y with books or jars on it, `gap` of room above."""
    rng = c.rng
    c.box(x0, y - gap, x1, y, c.colour(0.35))
    x = x0
    while x < x1 - 0.03:
        wide, tall = rng.uniform(0.015, 0.07), gap * rng.uniform(0.5, 0.95)
        colour = any_colour(rng)
        c.box(x, y - tall, min(x + wide, x1), y, colour)
        c.box(x, y - 0.8 * tall, min(x + wide, x1), y - 0.7 * tall, c.colour())
        x += wide * (1 if rng.random() < 0.9 else 2.5)
    c.box(x0, y, x1, y + 0.025, c.colour())


def _room(c: Canvas) -> None:
    rng = c.rng
    floor = rng.uniform(0.55, 0.95) * c.h
    c.lay(0, floor, (plaster, plaster, weave, tiles)[rng.integers(4)])
    c.lay(floor, c.h, (wood, tiles, stone, weave)[rng.integers(4)], lean=rng.uniform(0.5, 1.5))
    c.box(0, floor - 0.04, c.w, floor, c.colour())
    for _ in range(round(2 * c.w)):
        x, y, wide, tall = rng.uniform((-0.1, 0.0, 0.15, 0.15), (c.w, 0.4 * c.h, 0.5, 0.5))
        if rng.random() < 0.4:
            _window(c, x, y, x + wide, y + tall)
        else:
            c.box(x - 0.015, y - 0.015, x + wide + 0.015, y + tall + 0.015, c.colour(0.5))
            c.box(x, y, x + wide, y + tall, c.colour())
            c.fill(rng.uniform((x, y), (x + wide, y + tall), (4, 2)), c.colour())
    for _ in range(round(3 * c.w)):
        _furniture(c, rng.uniform(-0.1, c.w), floor + rng.uniform(0, 0.2))


def _furniture(c: Canvas, x: float, y: float) -> None:
    """A cupboard, a chest of drawers, a sofa or a shelf that stands at y."""
    rng = c.rng
    wide, tall, base = rng.uniform(0.2, 0.7), rng.uniform(0.15, 0.7), np.array(c.colour())
    if rng.random() < 0.3:
        for k in range(int(rng.integers(2, 5))):
            _shelf(c, x, x + wide, y - 0.2 * k, 0.19)
        return
    c.box(x, y - tall, x + wide, y, rgb(base))
    c.fill(
        [
            (x + wide, y - tall),
            (x + wide + 0.06, y - tall - 0.03),
            (x + wide + 0.06, y - 0.05),
            (x + wide, y),
        ],
        rgb(base * 0.55),
    )
    rows, columns = rng.integers(1, 5), rng.integers(1, 4)
    for row, column in np.ndindex(rows, columns):
        left, top = x + column * wide / columns, y - tall + row * tall / rows
        c.box(
            left + 0.01,
            top + 0.01,
            left + wide / columns - 0.01,
            top + tall / rows - 0.01,
            rgb(base * 1.12),
        )
        c.disc(left + wide / columns / 2, top + 0.04, 0.008, 0.008, rgb(base * 0.3))


def _kitchen(c: Canvas) -> None:
    rng = c.rng
    table = rng.uniform(0.3, 0.75) * c.h
    c.lay(0, table, (tiles, plaster)[rng.integers(2)])
    if rng.random() < 0.6:
        for x in np.arange(-rng.random(), c.w, rng.uniform(0.5, 1.2)):
            _shelf(c, x, x + 0.45, table - rng.uniform(0.2, 0.35), 0.15)
    c.lay(table, c.h, (wood, stone, plaster)[rng.integers(3)], lean=rng.uniform(0.3, 1.2))
    depths = np.sort(rng.uniform(0.0, 0.6, round(6 * c.w)))
    for x, depth in zip(rng.uniform(0, c.w, len(depths)), depths, strict=True):
        _thing(c, x, table + depth * (c.h - table), rng.uniform(0.12, 0.3) * (1 + depth))


def _desk(c: Canvas) -> None:
    rng = c.rng
    plaster(c)
    table = rng.uniform(0.5, 0.7) * c.h
    c.lay(table, c.h, wood if rng.random() < 0.6 else plaster, lean=0.8)
    for left in np.arange(rng.uniform(-0.4, 0.3), c.w, 1.3):
        top, right = table - rng.uniform(0.35, 0.5), left + rng.uniform(0.6, 0.8)
        middle = (left + right) / 2
        c.box(middle - 0.05, table - 0.1, middle + 0.05, table + 0.04, hsv(0, 0, 0.15))
        case = hsv(0, 0, rng.uniform(0.02, 0.9))
        c.box(left - 0.02, top - 0.02, right + 0.02, table - 0.05, case)
        c.box(left, top, right, table - 0.07, c.colour(1.3))
        c.box(left, top, left + 0.15, table - 0.07, c.colour())
        _writing(c, left + 0.17, top, right, table - 0.08, c.colour(0.6))
        key = np.array(hsv(0.6, 0.05, rng.uniform(0.05, 0.95)))
        c.box(left, table + 0.1, right, table + 0.3, rgb(key * 0.6))
        for row, column in np.ndindex(5, 14):
            x, y = left + 0.01 + column * (right - left) / 14.3, table + 0.11 + row * 0.037
            c.box(x, y, x + 0.035, y + 0.03, rgb(key))
    for _ in range(round(3 * c.w)):
        _thing(c, rng.uniform(0, c.w), table + rng.uniform(0.05, 0.3), rng.uniform(0.1, 0.25))


def _from_above(c: Canvas) -> None:
    rng = c.rng
    any_material(c)
    for _ in range(int(rng.integers(1, 9) * c.w * c.h)):
        _sheet(c, rng.uniform(0, c.w), rng.uniform(0, c.h), rng.uniform(0.15, 0.7))


def _outdoors(c: Canvas) -> None:
    rng = c.rng
    blue = hsv(rng.normal(0.58, 0.03), rng.uniform(0.1, 0.7), rng.uniform(0.5, 1))
    ramp(c, mottle(c, 0.7, 2), [blue, blue, hsv(0.1, rng.uniform(0, 0.2), rng.uniform(0.7, 1))])
    c.palette = [
        hsv(rng.normal(0.25, 0.06), rng.uniform(0.2, 0.7), rng.uniform(0.1, 0.8)) for _ in range(5)
    ]
    horizon = rng.uniform(0.2, 0.8) * c.h
    x = np.linspace(0, c.w, 60)
    for depth in (0.25, 0.12, 0.05):
        hills = horizon - depth * (1 + 0.4 * noise(rng, 60, 1, 0.7)[0])
        outline = np.concatenate([np.stack([x, hills], axis=-1), [(c.w, c.h), (0, c.h)]])
        c.fill(outline, c.colour(0.6 + 2 * depth))
    for left in rng.uniform(-0.2, c.w, round(rng.integers(0, 4) * c.w)):
        wide, tall = rng.uniform(0.1, 0.4), rng.uniform(0.2, 0.7)
        c.box(left, horizon - tall, left + wide, horizon, any_colour(rng))
        for row, column in np.ndindex(int(tall / 0.08), 4):
            top, near = horizon - tall + 0.02 + row * 0.08, left + (column + 0.25) * wide / 4
            c.box(near, top, near + wide / 8, top + 0.04, c.colour(0.5))
    c.lay(horizon, c.h, (leaves, stone, tiles)[rng.integers(3)], lean=rng.uniform(0.5, 2))


def _lights(c: Canvas) -> None:
    """A street or a party far out of focus."""
    rng = c.rng
    ramp(c, mottle(c, 0.4), [rgb(np.array(c.colour()) * factor) for factor in (0.1, 0.3, 0.6)])
    radius = rng.uniform(0.02, 0.09)
    for x, y in rng.uniform((0, 0), (c.w, c.h), (int(rng.integers(10, 60) * c.w * c.h), 2)):
        patch = c.picture.copy() if rng.random() < 0.1 else None
        size = radius * rng.uniform(0.7, 1.2)
        colour = hsv(rng.normal(0.1, 0.15), rng.uniform(0.1, 0.8), rng.uniform(0.4, 1))
        c.disc(x, y, size, size, colour)
        if patch is not None:
            c.picture[:] = cv2.addWeighted(patch, 0.5, c.picture, 0.5, 0)


def _posters(c: Canvas) -> None:
    rng = c.rng
    any_material(c)
    for _ in range(int(rng.integers(2, 12) * c.w * c.h)):
        x, y, wide, tall = rng.uniform((-0.1, -0.1, 0.15, 0.15), (c.w, c.h, 0.6, 0.7))
        c.box(x, y, x + wide, y + tall, c.colour())
        c.fill(rng.uniform((x, y), (x + wide, y + tall), (rng.integers(3, 6), 2)), any_colour(rng))
        _writing(c, x + 0.02, y + tall * 0.6, x + wide, y + tall, c.colour(0.5))


def _shelves(c: Canvas) -> None:
    plaster(c)
    gap = c.rng.uniform(0.15, 0.4)
    for y in np.arange(gap, c.h + gap, gap):
        _shelf(c, 0, c.w, y, gap - 0.025)


_SHARES = {
    **{_room: 5, _kitchen: 5, _desk: 3, _from_above: 5, _outdoors: 5, _lights: 2, _posters: 2},
    **{_shelves: 2, leaves: 3, weave: 2, stone: 2, wood: 1, tiles: 1, plaster: 2},
}
_SCENES = tuple(_SHARES)
_CHANCES = np.array(list(_SHARES.values())) / sum(_SHARES.values())
