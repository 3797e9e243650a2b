"""The FreiHAND data set (v2) as it lies on disk after unpacking."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np

from ..contract.errors import HandclrError
from ..contract.jsontext import parse_json
from .labelled import Invalid, LabelledHand, read_image

FOLDER = "FreiHAND_pub_v2"
EVAL_FOLDER = "FreiHAND_pub_v2_eval"
VERSIONS = ("gs", "hom", "sample", "auto")
_PREFIX = {"train": "training", "eval": "evaluation"}
# Entries of the published splits, and the size of their images, which no file of the set says.
_PUBLISHED, _PUBLISHED_SIZE = (32_560, 3_960), (224, 224)
# So many images, evenly spread, tell the size of all.
_FOR_SIZE = 33
_IMAGE_NAME = re.compile(r"\d{8}\.jpg")


class FreiHAND:
    """One split of FreiHAND: its length is the number of images, in the order of the file names.

    `split` is "train" or "eval"; `root` is `FreiHAND_pub_v2` or the folder that holds it;
    evaluation labels may lie in `FreiHAND_pub_v2_eval` beside it. The number of versions is
    counted, not assumed; versions are photographs of one pose with other backgrounds, and share
    their `sample`. Images are labelled in one `size`: the published one, or of another number of
    entries that of most images. Right hands, MediaPipe's order, metres. Raises HandclrError where
    anything is missing.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, root: str | os.PathLike[str], split: str) -> None:
        if split not in _PREFIX:
            raise HandclrError(f"FreiHAND has no split {split!r}; use one of: {', '.join(_PREFIX)}")
        self.split, prefix = split, _PREFIX[split]
        folders = _folders(Path(root), split)
        xyz_path = _find(folders, f"{prefix}_xyz.json")
        intrinsics_path = _find(folders, f"{prefix}_K.json")
        self.keypoints3d = _read_labels(xyz_path, (21, 3))
        self.intrinsics = _read_labels(intrinsics_path, (3, 3))
        self.samples = len(self.keypoints3d)
        if len(self.intrinsics) != self.samples:
            raise HandclrError(
                f"{intrinsics_path} has {len(self.intrinsics)} entries but {xyz_path} "
                f"has {self.samples}; unpack both files from the same FreiHAND release"
            )
        self.images = _find(folders, f"{prefix}/rgb")
        self.versions = _count_versions(self.images, self.samples, xyz_path)
        published = self.samples in _PUBLISHED
        self.size = _PUBLISHED_SIZE if published else _usual_size(self.images, len(self))

    def __len__(self) -> int:
        return self.samples * self.versions

    def __getitem__(self, number: int) -> LabelledHand:
        version, sample = divmod(range(len(self))[number], self.samples)
        name = VERSIONS[version] if self.versions == len(VERSIONS) else f"v{version}"
        return LabelledHand(
            path=self.images / f"{number:08d}.jpg",
            side="right",
            keypoints3d=self.keypoints3d[sample],
            intrinsics=self.intrinsics[sample],
            size=self.size,
            info={
                "video": f"freihand-{self.split}-{name}",
                "frame": sample,
                "sample": f"freihand-{self.split}-{sample:08d}",
                "version": name,
                "index": number,
            },
        )


def _folders(root: Path, split: str) -> list[Path]:
    """List the folders that may hold parts of the split, the most likely first."""
    if not root.is_dir():
        raise HandclrError(f"{root} is not a folder; give {FOLDER} or the folder that holds it")
    base = root / FOLDER if (root / FOLDER).is_dir() else root
    if split == "train":
        return [base]
    # abspath, because the parent of "." is "." again.
    return [base, Path(os.path.abspath(base)).parent / EVAL_FOLDER]


def _find(folders: list[Path], name: str) -> Path:
    """Return the first `folder/name` that exists."""
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    places = " or ".join(str(folder) for folder in folders)
    raise HandclrError(
        f"{name} is missing in {places}; unpack FreiHAND there or give {FOLDER} as the root"
    )


def _read_labels(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read a JSON list of matrices as float64 (N, *shape)."""
    try:
        values = np.asarray(parse_json(path.read_bytes()), dtype=np.float64)
    except OSError as error:
        raise HandclrError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise HandclrError(
            f"{path} is not a JSON list of numbers; unpack it again ({error})"
        ) from error
    if values.ndim != 3 or values.shape[1:] != shape or not len(values):
        raise HandclrError(
            f"{path} has the shape {values.shape}, "
            f"expected (N, {shape[0]}, {shape[1]}); unpack it again"
        )
    return values


def _count_versions(images: Path, samples: int, labels: Path) -> int:
    """Count the versions of each sample, and require every image file from 0 on."""
    names = {entry.name for entry in os.scandir(images) if _IMAGE_NAME.fullmatch(entry.name)}
    versions, rest = divmod(len(names), samples)
    if rest or not versions:
        raise HandclrError(
            f"{images} holds {len(names)} images, expected a multiple of the {samples} entries "
            f"of {labels}; unpack the missing images"
        )
    missing = next((i for i in range(len(names)) if f"{i:08d}.jpg" not in names), None)
    if missing is not None:
        raise HandclrError(
            f"{images} has no {missing:08d}.jpg, "
            f"expected 00000000.jpg to {len(names) - 1:08d}.jpg without gaps; "
            "unpack the missing images"
        )
    return versions


def _usual_size(images: Path, count: int) -> tuple[int, int] | None:
    """The width and height that most of the images have, by some of them; None if none says it."""
    sizes: Counter[tuple[int, int]] = Counter()
    for number in np.linspace(0, count, min(count, _FOR_SIZE), endpoint=False).astype(int).tolist():
        image = read_image(images / f"{number:08d}.jpg")
        if not isinstance(image, Invalid):
            sizes[image.shape[1], image.shape[0]] += 1
    return sizes.most_common(1)[0][0] if sizes else None
