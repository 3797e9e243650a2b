"""Where the hand landmarker's model file is found, and how it is fetched once and verified."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..contract.errors import HandclrError
from ..contract.kept import cache_folder
from ..contract.output import atomic_write
from ..contract.temporary import lock_file

NAME = "hand_landmarker.task"
URL = "https://storage.googleapis.com/mediapipe-models/hand_landmarker/hand_landmarker/float16/1/hand_landmarker.task"
SHA256 = "fbc2a30080c3c557093b5ddfc334698132eb341044ccee322ccf8bcf3607cde1"
WHEEL = "mediapipe==0.10.21"
# Every wheel of that release holds the same networks; with these tags any platform finds one.
PIP_OPTIONS = (
    *("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"),
    "--python-version=3.12",
    "--implementation=cp",
    "--abi=cp312",
    "--platform=manylinux_2_28_x86_64",
)
NETWORKS = {
    "hand_detector.tflite": (
        "mediapipe/modules/palm_detection/palm_detection_full.tflite",
        "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
    ),
    "hand_landmarks_detector.tflite": (
        "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
        "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
    ),
}
TIMEOUT_S = 20
PIP_TIMEOUT_S = 600
_ADVICE = f"download {URL} elsewhere and name it here or as HANDCLR_LANDMARKER"


def model_file(named: str | None, say: Callable[[str], None]) -> Path:
    """The landmarker's model file: the one named, else the cached one, else fetched into the cache.

    Fetching is announced through `say`. Raises HandclrError where a named file is not there, or
    there is none and it cannot be fetched, or with HANDCLR_OFFLINE=1 must not be.
    """
    if named:
        if not Path(named).is_file():
            why = f"no landmarker at {named}; name a {NAME}"
            raise HandclrError(f"{why}, or none and unset HANDCLR_LANDMARKER to have it fetched")
        return Path(named)
    cached = cache_folder() / NAME
    if _is_sound(cached):
        return cached
    lacking = f"there is none at {cached}"
    if cached.exists():
        lacking = f"{cached} is damaged"
        say(f"{lacking}; it is replaced")
    if os.environ.get("HANDCLR_OFFLINE", "0") not in ("", "0"):
        why = f"{lacking}, and HANDCLR_OFFLINE forbids fetching"
        raise HandclrError(f"{why}; {_ADVICE}", setting="landmarker")
    _fetch(cached, say)
    return cached


def _is_sound(path: Path) -> bool:
    """Whether a file is the published landmarker, or holds the same networks, byte for byte."""
    if not path.is_file():
        return False
    with contextlib.suppress(OSError):
        if hashlib.sha256(path.read_bytes()).hexdigest() == SHA256:
            return True
    try:
        found = checksums(path)
    except HandclrError:
        return False
    return found == {name: checksum for name, (_, checksum) in NETWORKS.items()}


def checksums(path: Path) -> dict[str, str]:
    """SHA-256 of each network in a model file, for the provenance, however the file was packed."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in NETWORKS}
    except Exception as error:  # whatever zipfile and zlib raise on bytes of any kind
        raise HandclrError(
            f"{path}: not a MediaPipe hand landmarker, or damaged ({error}); fetch {URL}"
        ) from error


def _fetch(target: Path, say: Callable[[str], None]) -> None:
    with contextlib.ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # In `extract | keypoints`, two processes may fetch the file at once.
            stack.enter_context(lock_file(target.with_name(f".{NAME}.lock"), wait=True))
        except OSError as error:
            raise HandclrError(
                f"cannot write the cache folder {target.parent}: {error.strerror}"
            ) from error
        if not _is_sound(target):
            say(f"fetching MediaPipe's hand landmarker, once, into {target}")
            try:
                data = _download()
            except (OSError, http.client.HTTPException):
                say(f"the download failed; taking the same networks from the {WHEEL} wheel by pip")
                _assemble(target)
            else:
                with atomic_write(target, "cached") as file:
                    file.write(data)


def _download() -> bytes:
    # The limit is of each wait for the server.
    with urllib.request.urlopen(URL, timeout=TIMEOUT_S) as response:
        data = response.read()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise OSError("checksum differs")
    return data


def _assemble(target: Path) -> None:
    """Pack the networks of the wheel as MediaPipe's task file does: uncompressed, same names."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", *PIP_OPTIONS, "--dest", folder, WHEEL]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=PIP_TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unfetched(str(error)) from error
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise _unfetched((done.stderr.strip().splitlines() or ["pip failed"])[-1])
        with (
            atomic_write(target, "cached") as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as task,
        ):
            for name, network in _networks(wheels[0]).items():
                task.writestr(zipfile.ZipInfo(name), network)


def _networks(wheel: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            networks = {name: archive.read(member) for name, (member, _) in NETWORKS.items()}
    except (zipfile.BadZipFile, KeyError) as error:
        raise _unfetched(f"{wheel.name}: {error}") from error
    for name, (member, checksum) in NETWORKS.items():
        if hashlib.sha256(networks[name]).hexdigest() != checksum:
            raise _unfetched(f"{member} has an unexpected checksum")
    return networks


def _unfetched(reason: str) -> HandclrError:
    return HandclrError(f"it cannot be fetched ({reason}); {_ADVICE}", setting="landmarker")


def _main() -> None:
    try:
        print(model_file(os.environ.get("HANDCLR_LANDMARKER"), partial(print, file=sys.stderr)))
    except HandclrError as error:
        sys.exit(f"handclr: error: {error}")


if __name__ == "__main__":
    _main()
