"""Small crops, shards and pose files for tests, and the command line as a subprocess."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import warm

from handclr_cli.contract.fields import IMAGE, INFO, KEYPOINTS_2D, encode_array, encode_object
from handclr_cli.contract.npz import as_keys, write_npz
from handclr_cli.contract.provenance import Provenance, provenance
from handclr_cli.contract.sample import Sample, sample_key
from handclr_cli.contract.shards import ShardWriter
from handclr_cli.contract.tar import END_OF_ARCHIVE, write_member

CLI = [sys.executable, "-m", "handclr_cli"]
ROOT = Path(__file__).resolve().parent.parent


def cli_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a subprocess: no network, the package importable from any folder."""
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    return {
        **os.environ,
        "HANDCLR_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": path,
        **(extra or {}),
    }


def run_cli(
    *args: str | Path,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line; `stdin` None is an empty standard input."""
    return warm.run([str(word) for word in args], stdin or b"", cli_env(env), cwd)


def error_line(done: subprocess.CompletedProcess[bytes], code: int) -> str:
    """Check that a run failed as users are promised: this exit code, one line that names the
    trouble.
    """
    text = done.stderr.decode()
    assert done.returncode == code, (done.returncode, text)
    lines = text.splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("handclr: error: "), text
    assert "Traceback" not in text
    return lines[0].removeprefix("handclr: error: ")


@functools.cache
def jpeg(shade: int = 128, size: int = 16) -> bytes:
    return cv2.imencode(".jpg", np.full((size, size, 3), shade, np.uint8))[1].tobytes()


def hand_points(seed: int, size: float = 16.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.9, (21, 2)) * size


def crop(
    video: str = "kitchen",
    frame: int = 0,
    *,
    points: np.ndarray | None = None,
    keypoints: bool = True,
    members: Mapping[str, bytes] | None = None,
    origin: Provenance | None = None,
) -> Sample:
    """A crop with a tiny image and JSON and, unless told otherwise, keypoints."""
    info = {
        "video": video,
        "frame": frame,
        "time_s": frame / 10,
        "hand": "right",
        "flipped": False,
        "score": 0.9,
    }
    own: dict[str, bytes | memoryview] = {IMAGE.suffix: jpeg(), INFO.suffix: encode_object(info)}
    if keypoints:
        seed = frame + 1000 * sum(video.encode())
        own[KEYPOINTS_2D.suffix] = encode_array(
            KEYPOINTS_2D, hand_points(seed) if points is None else points
        )
    return Sample(sample_key(video, frame, "right"), {**own, **(members or {})}, origin)


def crops(
    videos: Sequence[str] = ("attic", "barn"), frames: int = 3, **options: Any
) -> list[Sample]:
    return [crop(video, frame, **options) for video in videos for frame in range(frames)]


RECORD = provenance("extract", {"fps": 1.0}, ["videos"], seed=0)


def tar_bytes(samples: Iterable[Sample], record: Provenance = RECORD) -> bytes:
    """A complete shard of ours."""
    buffer = io.BytesIO()
    writer = ShardWriter(buffer, record)
    for sample in samples:
        writer.write(sample)
    writer.close()
    return buffer.getvalue()


def raw_tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A complete tar of any members, without provenance."""
    buffer = io.BytesIO()
    for name, data in members:
        write_member(buffer, name, data)
    return buffer.getvalue() + END_OF_ARCHIVE


def python_tar(members: Iterable[tuple[str, bytes]], form: int, mtime: float = 0) -> bytes:
    """A tar by Python's tarfile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), mtime
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_shard(path: Path, samples: Iterable[Sample], record: Provenance = RECORD) -> Path:
    path.write_bytes(tar_bytes(samples, record))
    return path


def pose_arrays(
    videos: Sequence[int], dimensions: int = 14, seed: int = 0
) -> dict[str, np.ndarray]:
    """Arrays of a pose file with one row per entry of `videos`, the number of its video."""
    video_id = np.asarray(videos, np.int32)
    rng = np.random.default_rng(seed)
    count = int(video_id.max(initial=-1)) + 1
    return {
        "key": as_keys(
            [sample_key(f"v{video}", row, "right") for row, video in enumerate(video_id)]
        ),
        "video": as_keys([f"v{video}" for video in range(count)]),
        "video_id": video_id,
        "embedding": rng.normal(size=(len(video_id), dimensions)).astype(np.float32),
        "components": np.eye(dimensions, 42),
        "mean": np.zeros(42),
        "explained_variance_ratio": np.full(dimensions, 1 / dimensions),
    }


def write_pose(path: Path, videos: Sequence[int], **changes: np.ndarray) -> Path:
    write_npz(str(path), "pose", {**pose_arrays(videos), **changes}, provenance("pca", {"dim": 14}))
    return path


def load_npz(data: bytes | Path) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data) if isinstance(data, bytes) else data, allow_pickle=False) as npz:
        return {name: npz[name] for name in npz.files}
