"""A canvas with units of its own, natural noise, and the materials that things are made of."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]
_SHIFT = 4


class Canvas:
    """An RGB picture in units of its shorter side: x from 0 to `w`, y from 0 to `h`."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        self.rng = rng
        self.unit = float(min(width, height))
        self.w, self.h = width / self.unit, height / self.unit
        self.picture = np.zeros((height, width, 3), np.uint8)
        self.palette = [any_colour(rng) for _ in range(5)]
        self.blur = 0.017 * rng.random() ** 1.3

    def colour(self, factor: float = 1.0) -> Colour:
        """Return a colour of the scene's palette, varied a little and made `factor` as bright."""
        base = np.array(self.palette[self.rng.integers(len(self.palette))])
        return rgb(base * factor * self.rng.uniform(0.8, 1.2) + self.rng.normal(0, 6, 3))

    def fill(self, points: Points | np.ndarray, colour: Colour) -> None:
        """Fill a polygon, (N, 2) points."""
        cv2.fillPoly(self.picture, [self._fixed(points)], colour, cv2.LINE_AA, _SHIFT)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fill an upright rectangle."""
        self.fill([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def line(self, points: Points | np.ndarray, colour: Colour, thickness: float) -> None:
        """Draw a line through (N, 2) points, at least a pixel thick."""
        thick = max(1, round(thickness * self.unit))
        cv2.polylines(
            self.picture, [self._fixed(points)], False, colour, thick, cv2.LINE_AA, _SHIFT
        )

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Fill an ellipse around (x, y)."""
        centre, radii = self._fixed([(x, y), (rx, ry)]).tolist()
        radii = [max(8, radius + 8) for radius in radii]
        cv2.ellipse(self.picture, centre, radii, 0, 0, 360, colour, -1, cv2.LINE_AA, _SHIFT)

    def lay(
        self, y0: float, y1: float, material: Callable[[Canvas], None], lean: float = 0.0
    ) -> None:
        """Cover the width from y0 to y1 with a material; with `lean` > 0 in perspective."""
        height, width = self.picture.shape[:2]
        top, bottom = (min(height, max(0, round(y * self.unit))) for y in (y0, y1))
        if bottom <= top:
            return
        tall = bottom - top if lean == 0 else max(bottom - top, height // 2)
        cloth = Canvas(self.rng, width, tall)
        cloth.palette = self.palette
        material(cloth)
        sheet: np.ndarray = cloth.picture
        if lean > 0:
            sheet = _laid_down(sheet, bottom - top, lean)
        self.picture[top:bottom] = sheet

    def _fixed(self, points: Points | np.ndarray) -> np.ndarray:
        # OpenCV puts pixel centres at whole numbers and takes points as fixed-point integers.
        return np.rint((np.asarray(points) * self.unit - 0.5) * 2**_SHIFT).astype(np.int32)


def _laid_down(sheet: np.ndarray, height: int, lean: float) -> np.ndarray:
    """A picture in perspective, as wide as before and `height` high: its lower edge is nearer."""
    rows, width = sheet.shape[:2]
    tall = float(height)
    corners = [(0, 0), (width, 0), (width * (1 + lean), tall), (-width * lean, tall)]
    source = [(0, 0), (width, 0), (width, rows), (0, rows)]
    warp = cv2.getPerspectiveTransform(np.array(source, np.float32), np.array(corners, np.float32))
    return cv2.warpPerspective(sheet, warp, (width, height), borderMode=cv2.BORDER_REFLECT)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return the RGB colour of a hue in turns, and a saturation and value, clipped to 0..1."""
    saturation, value = min(1, max(0, saturation)), min(1, max(0, value))
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def rgb(values: np.ndarray) -> Colour:
    """Return the colour nearest to three numbers of any size."""
    red, green, blue = np.clip(np.rint(values), 0, 255).astype(int).tolist()
    return red, green, blue


def any_colour(rng: np.random.Generator) -> Colour:
    """Draw a colour of things: mostly muted, sometimes vivid, often as wood, leather or skin."""
    value = rng.uniform(0.06, 0.95)
    if rng.random() < 0.35:
        return hsv(rng.normal(0.07, 0.025), rng.uniform(0.15, 0.75), value)
    # What is both bright and vivid is lamps and neon, not paint.
    return hsv(rng.random(), rng.beta(0.9, 2.2) * (1.2 - 0.6 * value), value)


def noise(
    rng: np.random.Generator, width: int, height: int, roughness: float, stretch: float = 1.0
) -> np.ndarray:
    """Draw noise (height, width) float32 of mean 0 and deviation 1, `stretch` times longer in x.

    Each octave has `roughness` times the amplitude of the coarser one: 1 gives the spectra of
    photographs.
    """
    finest = (max(1, math.ceil(width / stretch / 2)), max(1, math.ceil(height / 2)))
    field: np.ndarray = np.zeros((1, 1), np.float32)
    for level in range(max(finest).bit_length() - 2, -1, -1):
        size = (math.ceil(finest[0] / 2**level), math.ceil(finest[1] / 2**level))
        field = cv2.resize(field, size, interpolation=cv2.INTER_LINEAR) / roughness
        field = field + rng.standard_normal(size[::-1], dtype=np.float32)
    mean, deviation = cv2.meanStdDev(field)
    field = (field - np.float32(mean.item())) / np.float32(deviation.item() + 1e-6)
    return cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)


def ramp(c: Canvas, field: np.ndarray, colours: Sequence[Colour]) -> None:
    """Colour a canvas by a field: -2 is the first of the colours and 2 the last."""
    stops, steps = np.linspace(0, 255, len(colours)), np.arange(256)
    channels = [np.interp(steps, stops, channel) for channel in zip(*colours, strict=True)]
    table = np.stack(channels, axis=-1)
    index = cv2.convertScaleAbs(field.clip(-2, 2) + 2, alpha=63.75)
    c.picture[:] = cv2.applyColorMap(index, np.rint(table).astype(np.uint8).reshape(256, 1, 3))


def mottle(c: Canvas, roughness: float, stretch: float = 1.0) -> np.ndarray:
    """Draw `noise` of a canvas's size, (H, W) float32."""
    return noise(c.rng, c.picture.shape[1], c.picture.shape[0], roughness, stretch)


def plaster(c: Canvas) -> None:
    """Paint a wall, paper or carpet: one colour, a little mottled."""
    base = np.array(c.colour())
    depth = c.rng.uniform(0.02, 0.2)
    ramp(c, mottle(c, c.rng.uniform(0.6, 1.1)), [rgb(base * (1 - depth)), rgb(base * (1 + depth))])


def stone(c: Canvas) -> None:
    """Paint marble, stains, clouds or anything else of several colours that run into each other."""
    ramp(c, mottle(c, c.rng.uniform(0.6, 1.0)), [c.colour() for _ in range(c.rng.integers(2, 5))])


def wood(c: Canvas) -> None:
    """Paint boards with their grain."""
    rng, height = c.rng, c.picture.shape[0]
    dark = np.array(hsv(rng.normal(0.07, 0.02), rng.uniform(0.2, 0.7), rng.uniform(0.1, 0.6)))
    planks = rng.integers(1, 9)
    row = np.arange(height) * planks // height
    grain = mottle(c, 0.8, rng.uniform(6, 20))
    grain = grain + rng.normal(0, 1.5, planks)[row][:, None].astype(np.float32)
    waves = np.sin(grain * np.float32(rng.uniform(1, 4))) * 2
    ramp(c, waves, [rgb(dark), rgb(dark * rng.uniform(1.2, 1.7))])
    for y in np.arange(1, planks) * c.h / planks:
        c.line([(0, y), (c.w, y)], rgb(dark * 0.5), 0.004)


def tiles(c: Canvas) -> None:
    """Paint tiles, bricks or paving: a grid of slightly different colours with joints."""
    rng = c.rng
    across, down = int(rng.integers(2, 12)), int(rng.integers(2, 16))
    tiles = (
        np.array(c.colour()) + rng.normal(0, rng.uniform(1, 25), (down, across, 1)) + np.zeros(3)
    )
    if rng.random() < 0.3:
        tiles[np.indices((down, across)).sum(axis=0) % 2 == 0] = c.colour()
    size = c.picture.shape[1::-1]
    c.picture[:] = cv2.resize(
        tiles.clip(0, 255).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST
    )
    joint, thick, shift = c.colour(), rng.uniform(0.002, 0.015), rng.choice([0.0, 0.5])
    for row, y in enumerate(np.arange(down + 1) * c.h / down):
        c.line([(0, y), (c.w, y)], joint, thick)
        for x in (np.arange(across) + shift * (row % 2)) * c.w / across:
            c.line([(x, y), (x, y + c.h / down)], joint, thick)


def weave(c: Canvas) -> None:
    """Paint a patterned cloth in soft folds: stripes, checks or plaid."""
    rng = c.rng
    height, width = c.picture.shape[:2]
    period = int(rng.integers(3, 14))
    bands = np.array([c.palette[i] for i in rng.integers(0, len(c.palette), period)], np.float32)
    step = rng.uniform(0.008, 0.05) * c.unit
    x = (np.arange(width) / step).astype(int) % period
    y = (np.arange(height) / step).astype(int) % period
    across = rng.choice([0.0, 0.5, 1.0], p=[0.25, 0.5, 0.25])
    cloth = (np.float32(1 - across) * bands[x])[None] + (np.float32(across) * bands[y])[:, None]
    bend = noise(rng, width, height, 0.3)
    rows, columns = np.indices((height, width), dtype=np.float32)
    bend *= np.float32(rng.uniform(0, 0.03) * c.unit)
    c.picture[:] = cv2.remap(
        cloth.astype(np.uint8),
        columns + bend,
        rows + bend,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )


def leaves(c: Canvas) -> None:
    """Paint foliage, gravel, litter or a crowd: many pointed shapes, small ones on large ones."""
    rng = c.rng
    stone(c)
    count = int(rng.integers(80, 350) * c.w * c.h)
    sizes = np.sort(0.02 / (0.08 + rng.random(count)))[::-1]
    corners = rng.integers(3, 7)
    turns = np.sort(rng.uniform(0, 2 * math.pi, (count, corners)), axis=1)
    reach = sizes[:, None] * rng.uniform(0.4, 1.0, (count, corners))
    x, y = rng.uniform(0, c.w, (count, 1)), rng.uniform(0, c.h, (count, 1))
    shapes = np.stack([x + reach * np.cos(turns), y + reach * np.sin(turns)], axis=-1)
    for shape, factor in zip(shapes, rng.uniform(0.4, 1.5, count), strict=True):
        c.fill(shape, c.colour(factor))


_MATERIALS = (plaster, stone, wood, tiles, weave)


def any_material(c: Canvas) -> None:
    """Paint one of the materials of floors, tables and walls."""
    _MATERIALS[c.rng.integers(len(_MATERIALS))](c)
