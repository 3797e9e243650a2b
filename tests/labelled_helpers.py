"""Small labelled and mined shards for the tests of the trainers: coloured dots where the joints
are.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import warm

from handclr_cli.contract import fields
from handclr_cli.contract.npz import as_keys, write_npz
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample, sample_key
from handclr_cli.contract.shards import ShardOutput

CAMERA = np.array([[120.0, 0, 32], [0, 120.0, 32], [0, 0, 1]])
SIZE = 64
# Options of the smallest training; later options override them.
TRAINING = ("--arch", "resnet18", "--size", "32", "--workers", "0", "--device", "cpu")


def pose(rng: np.random.Generator) -> np.ndarray:
    """A random fan of five fingers before the camera, (21, 3) metres."""
    angles = np.linspace(-0.9, 0.9, 5) + rng.normal(0, 0.1) - np.pi / 2
    steps = np.array([0.04, 0.06, 0.075, 0.09]) * rng.uniform(0.9, 1.1)
    fingers = [(np.cos(a) * s, np.sin(a) * s, rng.normal(0, 0.005)) for a in angles for s in steps]
    return np.array([(0, 0, 0), *fingers]) + [0, 0.04, 0.5]


def labelled_sample(number: int, version: int = 0) -> Sample:
    """A sample of a video of four frames, with every field; versions of a number share their
    labels.
    """
    keypoints3d = pose(np.random.default_rng(number))
    projected = keypoints3d @ CAMERA.T
    keypoints2d = projected[:, :2] / projected[:, 2:]
    image = np.full((SIZE, SIZE, 3), 40 + 50 * version, np.uint8)
    for joint, (x, y) in enumerate(keypoints2d):
        colour = (255 - 10 * joint, 100 + 7 * joint, 12 * joint)
        cv2.circle(image, (round(x), round(y)), 2, colour, -1)
    video = f"video{number // 4}-v{version}"
    info = {"video": video, "frame": number, "hand": "right", "sample": f"unique-{number:04d}"}
    members: dict[str, bytes | memoryview] = {
        fields.IMAGE.suffix: fields.encode_image(image),
        fields.INFO.suffix: fields.encode_object(info),
        fields.KEYPOINTS_2D.suffix: fields.encode_array(fields.KEYPOINTS_2D, keypoints2d),
        fields.KEYPOINTS_3D.suffix: fields.encode_array(fields.KEYPOINTS_3D, keypoints3d),
        fields.INTRINSICS.suffix: fields.encode_array(fields.INTRINSICS, CAMERA),
    }
    return Sample(sample_key(video, number, "right"), members)


def without_tables(jpeg: bytes) -> bytes:
    """A JPEG that can only be told to be damaged by decoding it: its Huffman tables are."""
    at = jpeg.index(b"\xff\xc4") + 4
    return jpeg[:at] + b"\xff" * 10 + jpeg[at + 10 :]


def write_labelled(path: Path, count: int, versions: int = 1, first: int = 0) -> Path:
    """Write a shard of `count` labelled samples, each in so many versions."""
    with ShardOutput(str(path), provenance("test", {})) as out:
        for number in range(first, first + count):
            for version in range(versions):
                out.write(labelled_sample(number, version))
    return path


def write_pairs(path: Path, keys: list[str], positive: list[int]) -> Path:
    """Write a pairs file."""
    rows = np.array(positive, np.int32)[:, None]
    distance = np.where(rows < 0, np.inf, 1.0).astype(np.float32)
    arrays = {"key": as_keys(keys), "positive": rows, "distance": distance}
    write_npz(str(path), "pairs", arrays, provenance("test", {}))
    return path


def command(*arguments: object) -> list[str]:
    """The command line of handclr in this interpreter."""
    return [sys.executable, "-m", "handclr_cli", *map(str, arguments)]


def handclr(
    *arguments: object, stdin: bytes = b"", code: int = 0
) -> subprocess.CompletedProcess[bytes]:
    """Run handclr and check its exit code."""
    done = warm.run([str(word) for word in arguments], stdin, timeout=300)
    assert done.returncode == code, done.stderr.decode()
    return done


def error_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one line of an error on standard error."""
    lines = [
        line for line in done.stderr.decode().splitlines() if line.startswith("handclr: error:")
    ]
    assert len(lines) == 1, done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    return lines[0]
