"""The 2D pose of a crop: phi of the paper (Sec. 3.2), 21 keypoints by MediaPipe."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import IMAGE
from ..contract.sample import Sample
from ..work.cores import finder_count
from ..work.crew import Crew, WorkerLostError
from .frames import Hand
from .landmarker import Landmarker
from .windows import look_in

# The palm detector needs surroundings that a tight crop lacks. Widths are shares of the crop's
# side; edge pixels are repeated, or the border is black. Chosen by how often a hand is found in
# crops of real footage: 56 % without padding, 91 % with the first one, 97 % with all.
PADDINGS = ((0.0, "edge"), (1.0, "edge"), (0.5, "edge"), (0.25, "constant"), (1.0, "constant"))
# Share of the crop's side; at a margin of 1.5 a hand's longer side takes two thirds.
SMALL = 0.45
# So many crops are sent to a worker at a time.
BATCH = 8
# With fewer crops, starting another process takes longer than it saves.
CROPS_PER_WORKER = 60
_CROPS_PER_PROCESS = 20_000


@dataclass(frozen=True)
class Finder:
    """Finds the hands of crops; each worker process has a landmarker of its own."""

    model: Path
    min_score: float

    def __call__(self, crops: Sequence[Sample]) -> Iterator[Hand | HandclrError | None]:
        """Yield for each crop its hand, None where there is none, or why it cannot be read.

        Raises HandclrError where the landmarker cannot be loaded, which is no crop's fault.
        """
        landmarker = self._landmarker
        for crop in crops:
            try:
                yield find_keypoints(crop.image, landmarker)
            except HandclrError as error:
                yield error

    def prepare(self) -> None:
        """Make the landmarker now: where memory is too short for it, no crop is to blame."""
        self._landmarker  # noqa: B018 - made when asked for

    @cached_property
    def _landmarker(self) -> Landmarker:
        return Landmarker(self.model, 2, self.min_score)


class Known:
    """Said of a crop that was not looked at."""


def finders(
    finder: Finder, workers: int | None, crops: int
) -> Crew[Sequence[Sample], Hand | HandclrError | None]:
    """Processes that find the hands of about so many crops, as many as asked or as suit these."""
    return Crew(finder, finder_count(workers, crops, CROPS_PER_WORKER), _CROPS_PER_PROCESS)


def find_all(
    samples: Iterable[Sample],
    crew: Crew[Sequence[Sample], Hand | HandclrError | None],
    is_known: Callable[[Sample], bool] = lambda sample: False,
) -> Iterator[tuple[Sample, Hand | HandclrError | Known | None]]:
    """Yield each sample, in order, with what a crew of `Finder` found in its crop.

    Crops that are known already are not looked at.
    """
    rest, waiting = iter(samples), deque[list[Sample]]()

    def batches() -> Iterator[list[Sample]]:
        while batch := list(islice(rest, BATCH)):
            waiting.append(batch)
            yield [_image_of(sample) for sample in batch if not is_known(sample)]

    for _, hands in crew.answers(batches()):
        lost: WorkerLostError | None = None
        for sample in waiting.popleft():
            if is_known(sample):
                yield sample, Known()
                continue
            try:
                found = next(hands, lost)
            except WorkerLostError as error:
                found = lost = error
            if lost:
                found = HandclrError(f"{sample.source}: sample {sample.key}: {lost}")
            yield sample, found


def _image_of(sample: Sample) -> Sample:
    """The part of a sample that a worker needs."""
    members: dict[str, Any] = {}
    if suffix := sample.suffix_of(IMAGE):
        members[suffix] = bytes(sample.members[suffix])
    return Sample(sample.key, members, None, sample.source)


def find_keypoints(image: np.ndarray, landmarker: Landmarker) -> Hand | None:
    """Find the hand that a crop was made for, keypoints in crop pixels; None where there is none.

    image: uint8 (S, S, 3) RGB. Of several hands the one nearest to the centre is taken; one whose
    middle lies outside the crop comes from the padding. Crops show right hands, which fill them. A
    hand that looks like a left one, or is small, is usually a bad fit, and kept only where no
    padding gives a better one: on real footage this lowers the median error of the former from 11 %
    to 7 % of the hand's size, and of 12 small ones, most of them on a fingertip, 3 remain.
    """
    size, second = image.shape[0], None
    for share, mode in PADDINGS:
        hand = find_centred(image, share, mode, landmarker)
        if hand:
            if hand.side == "right" and np.ptp(hand.keypoints, axis=0).max() >= SMALL * size:
                return hand
            if second is None or (hand.side == "right" and second.side == "left"):
                second = hand
    return second


def find_centred(image: np.ndarray, share: float, mode: str, landmarker: Landmarker) -> Hand | None:
    """Find the hand nearest to the centre of a crop, which gets a border first, as in PADDINGS.

    Its keypoints are in crop pixels. None where there is no hand whose middle is in the crop.
    """
    size = image.shape[0]
    border = round(size * share)
    box = (-border, -border, size + border, size + border)
    hands = look_in(image, box, landmarker.find, black=mode == "constant")
    return min(hands, key=lambda hand: _off_centre(hand, size), default=None)


def _off_centre(hand: Hand, size: int) -> float:
    """Distance of a hand's centre from the crop's along the worse axis, in sides of the crop."""
    middle = (hand.keypoints.min(axis=0) + hand.keypoints.max(axis=0)) / 2
    return float(np.abs(middle / size - 0.5).max())
