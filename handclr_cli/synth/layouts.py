"""Synthetic hands written to disk in the layouts of FreiHAND, DexYCB and AssemblyHands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.errors import HandclrError
from ..hand.joints import FINGERS
from .layout_assemblyhands import write_assemblyhands
from .layout_dexycb import write_dexycb
from .layout_files import (
    FRAMES,
    Advance,
    LabelledScene,
    MakeScene,
    hand,
    save_image,
    save_json,
    whole_folder,
)
from .shot import LEFT_HAND

__all__ = [
    "FRAMES",
    "LAYOUTS",
    "Advance",
    "LabelledScene",
    "MakeScene",
    "write_assemblyhands",
    "write_dexycb",
    "write_freihand",
]

_SIZE = (224, 224)
_VERSIONS = 4


def write_freihand(root: Path, make_scene: MakeScene, count: int, advance: Advance) -> int:
    """Write right hands in FreiHAND's layout and return the number of images.

    `count` poses in 4 versions (other backdrops) for training and max(1, count // 8) for
    evaluation, 224x224, each of a scene of its own at time 0. Metres; intrinsics as in the Shot.
    Masks show the hand without what it holds. Evaluation's xyz lies in FreiHAND_pub_v2_eval, as it
    was released. Left out, because these hands are no MANO meshes: *_mano.json and *_verts.json.
    Raises UsageError where `root` is not empty, HandclrError where a scene is without a hand.
    """
    with whole_folder(root, count) as folder:
        base, tests = folder / "FreiHAND_pub_v2", max(1, count // 8)
        train = _freihand_split(base / "training", make_scene, range(count), _VERSIONS, advance)
        test = _freihand_split(
            base / "evaluation", make_scene, range(count, count + tests), 1, advance
        )
        for name in ("K", "scale"):
            save_json(base / f"training_{name}.json", train[name])
            save_json(base / f"evaluation_{name}.json", test[name])
        save_json(base / "training_xyz.json", train["xyz"])
        save_json(folder / "FreiHAND_pub_v2_eval" / "evaluation_xyz.json", test["xyz"])
    return count * _VERSIONS + tests


def _freihand_split(
    folder: Path, make_scene: MakeScene, scenes: range, versions: int, advance: Advance
) -> dict[str, list[Any]]:
    labels: dict[str, list[Any]] = {"K": [], "xyz": [], "scale": []}
    mcp, pip = FINGERS["middle"][:2]
    for sample, index in enumerate(scenes):
        scene = make_scene(index, _SIZE, ("right",))
        shots = [scene.shoot(0, backdrop=version) for version in range(versions)]
        for version, shot in enumerate(shots):
            save_image(folder / "rgb" / f"{sample + len(scenes) * version:08d}.jpg", shot.image)
        if folder.name == "training":
            mask = np.where(shots[0].segmentation >= LEFT_HAND, 255, 0).astype(np.uint8)
            save_image(folder / "mask" / f"{sample:08d}.jpg", mask)
        joints = hand(shots[0], "right")
        if joints is None:
            why = "shows no right hand, and FreiHAND's layout has no place for that"
            raise HandclrError(f"scene {index} {why}")
        labels["K"].append(shots[0].intrinsics.tolist())
        labels["xyz"].append(joints.tolist())
        labels["scale"].append(float(np.linalg.norm(joints[mcp] - joints[pip])))
        advance(versions)
    return labels


LAYOUTS: dict[str, Callable[[Path, MakeScene, int, Advance], int]] = {
    "freihand": write_freihand,
    "dexycb": write_dexycb,
    "assemblyhands": write_assemblyhands,
}
