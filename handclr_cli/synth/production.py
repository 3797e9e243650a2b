"""Scenes as files: videos with their truth, and labelled crops; the work for several processes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..contract.errors import HandclrError, UsageError
from ..contract.provenance import Provenance
from ..contract.sample import Sample, sample_key, video_id, video_names
from ..contract.shards import ShardOutput
from ..contract.units import provenance_of
from ..hand.labelled_crop import labelled_crop, labelled_sample
from ..work.pulse import beat
from ..work.worker import one_thread
from .layout_files import in_view
from .layouts import FRAMES, MakeScene
from .scenes import Scene
from .shot import HandTruth, Shot
from .video_file import video_writer
from .worlds import WORLDS

# A labelled picture is a little larger than the crop, so that the crop is about as sharp as the
# picture.
_FRAME_OVER_CROP = 1.3
_MARGIN = 1.5
# Moments of a layout's scene lie far apart, so that their poses differ.
_LAYOUT_FPS = 3.0
# DexYCB's splits name ten people.
_LAYOUT_SUBJECTS = 10


@dataclass(frozen=True)
class Crops:
    """How crops are cut: side in pixels, side over the hand's longer side, JPEG quality."""

    size: int = 224
    margin: float = _MARGIN
    quality: int = 95


@dataclass(frozen=True)
class Videos:
    """Videos to make in `folder`: `frames` at `fps` of `size` (width, height)."""

    folder: Path
    world: str
    seed: int
    frames: int
    fps: float
    size: tuple[int, int]
    crops: Crops
    record: Provenance

    def video(self, index: int) -> Path:
        """Where video `index` is written."""
        return self.folder / f"{self.world}-{self.seed}-{index:05d}.mp4"

    def truth(self, index: int) -> Path:
        """Where its truth is written: last, so that it exists when the video is complete."""
        return self.folder / "truth" / f"{self.video(index).stem}.tar"

    def done(self, index: int) -> bool:
        """Whether a video is complete.

        Raises UsageError where the video was made with other arguments. Raises HandclrError where
        its truth is damaged.
        """
        truth = self.truth(index)
        if not (truth.exists() and self.video(index).exists()):
            return False
        try:
            made = provenance_of(str(truth)) or {}
        except HandclrError as error:
            why = "damaged; remove it, and its video is filmed again"
            raise HandclrError(f"{truth}: {why}") from error
        if made != self.record:
            before, now = made.get("arguments", {}), self.record["arguments"]
            names = [f"{name} {before.get(name)}" for name in now if before.get(name) != now[name]]
            other = ", ".join(names) or f"handclr {made.get('version')}"
            why = f"made with {other}; remove the folder or name another"
            raise UsageError(f"{self.video(index)}: {why}")
        return True

    def make(self, index: int) -> int:
        """Write video `index` and the truth of hands in view; returns the number of hands."""
        scene = Scene(
            WORLDS[self.world], self.seed, index, self.size, frames=self.frames, fps=self.fps
        )
        person = _person(self.world, self.seed, scene.subject)
        path = self.video(index)
        name = video_names([Path(os.path.abspath(path))])[0]
        # Contexts end from the last to the first: the video has its name before the truth does.
        with (
            ShardOutput(str(self.truth(index)), self.record) as out,
            video_writer(path, self.fps, self.size) as write,
        ):
            for time in range(self.frames):
                beat()
                shot = scene.shoot(time)
                write(shot.image)
                for hand in shot.hands:
                    if not in_view(hand.keypoints3d, shot).any():
                        continue
                    key = sample_key(video_id(name), time, hand.side)
                    info = {"video": name, "frame": time, "time_s": round(time / self.fps, 4)}
                    out.write(_labelled(shot, hand, key, info, person, self.crops))
        return out.samples


@dataclass(frozen=True)
class Portraits:
    """Labelled crops to make: `world`, `seed`, and how they are cut."""

    world: str
    seed: int
    crops: Crops

    def make(self, index: int) -> Sample:
        """One hand, left or right by turns, of scene `index`."""
        # A wider margin shows more of the picture around a smaller hand, a narrower one less of a
        # larger picture.
        wide = self.crops.margin / _MARGIN
        world = WORLDS[self.world]
        world = replace(world, reach=(world.reach[0] / max(wide, 1), world.reach[1] / max(wide, 1)))
        side = max(64, round(self.crops.size * _FRAME_OVER_CROP / min(wide, 1)))
        scene = Scene(world, self.seed, index, (side, side), (("right", "left")[index % 2],))
        shot = scene.shoot(0)
        video = f"synth-{self.world}-{self.seed}-{scene.subject:05d}"
        key = sample_key(video, index, shot.hands[0].side)
        info = {"video": video, "frame": index, "time_s": None}
        person = _person(self.world, self.seed, scene.subject)
        return _labelled(shot, shot.hands[0], key, info, person, self.crops)


def scene_maker(world: str, seed: int) -> MakeScene:
    """Scenes for the layouts: a few moments each, seen by fixed cameras with one lens."""
    one_thread()
    drawn = WORLDS[world]
    lens = sum(drawn.field) / 2
    fixed = replace(drawn, field=(lens, lens), shake=0.0, subjects=_LAYOUT_SUBJECTS)

    def make(index: int, size: tuple[int, int], sides: tuple[str, ...]) -> Scene:
        return Scene(fixed, seed, index, size, sides, FRAMES, _LAYOUT_FPS)

    return make


def _person(world: str, seed: int, subject: int) -> str:
    """A name that nobody of another world or seed has: their numbers all begin at 0."""
    return f"{world}-{seed}-{subject}"


def _labelled(
    shot: Shot, hand: HandTruth, key: str, info: dict[str, Any], person: str, crops: Crops
) -> Sample:
    """The crop around one hand of a shot with its labels."""
    left = hand.side == "left"
    crop = labelled_crop(
        shot.image, hand.keypoints3d, shot.intrinsics, crops.size, crops.margin, left
    )
    height, width = shot.image.shape[:2]
    info = {
        **info,
        "box": crop["box"],
        "source_size": [width, height],
        "hand": hand.side,
        "flipped": left,
        "score": 1.0,
        "sample": key,
        "subject": person,
    }
    return labelled_sample(key, crop, info, crops.quality)
