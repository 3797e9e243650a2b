"""Worlds as different as labelled sets and footage in the wild: a studio, and all else.

The third is the second one seen from every side and distance: to train on, not to test on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .backdrops import lab_backdrop, wild_backdrop
from .sensor import Sensor, lab_sensor, wild_sensor

Range = tuple[float, float]


@dataclass(frozen=True)
class World:
    """What scenes are drawn from.

    number: part of every seed. subjects: how many people there are, None for a new one in each
    scene. tone: range of skin depth in 0..1. spread: of the views, 0..1, or 2 for all of them.
    field: view angle of the frame's shorter side, degrees. reach: length of a hand over the shorter
    side of the frame. pairs, sleeves, objects: probabilities of two hands, of a sleeve, of a held
    object. shake: of the camera, degrees. shutter: share of the frame's time that it is open. key,
    ambient: ranges of the light. backdrop and sensor draw what is behind and the camera.
    """

    name: str
    number: int
    subjects: int | None
    tone: Range
    spread: float
    field: Range
    reach: Range
    pairs: float
    sleeves: float
    objects: float
    shake: float
    shutter: Range
    key: Range
    ambient: Range
    colour: float
    backdrop: Callable[[np.random.Generator, int, int], np.ndarray]
    sensor: Callable[[np.random.Generator], Sensor]


LAB = World(
    name="lab",
    number=0,
    subjects=6,
    tone=(0.1, 0.6),
    spread=0.35,
    field=(34.0, 40.0),
    reach=(0.48, 0.62),
    pairs=0.0,
    sleeves=0.3,
    objects=0.0,
    shake=0.0,
    shutter=(0.0, 0.1),
    key=(0.9, 1.2),
    ambient=(0.35, 0.5),
    colour=0.03,
    backdrop=lab_backdrop,
    sensor=lab_sensor,
)
WILD = World(
    name="wild",
    number=1,
    subjects=None,
    tone=(0.0, 1.0),
    spread=0.36,
    field=(38.0, 62.0),
    reach=(0.46, 0.68),
    pairs=0.2,
    sleeves=0.4,
    objects=0.12,
    shake=2.5,
    shutter=(0.0, 0.45),
    key=(0.7, 1.6),
    ambient=(0.35, 0.7),
    colour=0.12,
    backdrop=wild_backdrop,
    sensor=wild_sensor,
)
ANY = replace(WILD, name="any", number=2, spread=2.0, field=(12.0, 60.0), sleeves=0.5, objects=0.35)
WORLDS = {world.name: world for world in (LAB, WILD, ANY)}
