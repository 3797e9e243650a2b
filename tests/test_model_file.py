"""The landmarker's file: named, cached, fetched once and verified; and one line of advice where it
cannot be.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import subprocess
import threading
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import Handclr, lines

from handclr_cli.contract.errors import HandclrError
from handclr_cli.footage import model_file as module
from handclr_cli.footage.model_file import NAME, NETWORKS, URL, cache_folder, checksums, model_file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and neither a network nor pip."""
    monkeypatch.setenv("HANDCLR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_download", unreachable)
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: pytest.fail("pip was started"))
    return tmp_path / "cache"


def unreachable() -> bytes:
    raise OSError("no network")


def pip_that_leaves(wheel: bytes | None, stderr: str = "") -> Any:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"]
        if wheel is not None:
            folder = Path(command[command.index("--dest") + 1])
            (folder / "mediapipe-0.10.21-cp312-cp312-manylinux_2_28_x86_64.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(command, 0 if wheel else 1, "", stderr)

    return run


def wheel_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def visible(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name != f".{NAME}.lock"]


def advice(error: pytest.ExceptionInfo[HandclrError]) -> str:
    message = str(error.value)
    assert "\n" not in message and URL in message and "HANDCLR_LANDMARKER" in message
    return message


def test_named_file(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.task").write_bytes(b"x")
    assert model_file(str(tmp_path / "mine.task"), pytest.fail) == tmp_path / "mine.task"
    for bad in (tmp_path / "missing.task", tmp_path):
        with pytest.raises(HandclrError, match="no landmarker at"):
            model_file(str(bad), pytest.fail)


def published(data: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Let data be the file that is published."""
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(data).hexdigest())
    return data


def test_cached_file_is_not_fetched_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    (cache / NAME).write_bytes(published(b"x", monkeypatch))
    assert model_file(None, pytest.fail) == cache / NAME


def test_a_damaged_cache_is_fetched_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = published(b"the file", monkeypatch)
    monkeypatch.setattr(module, "_download", lambda: whole)
    cache.mkdir()
    (cache / NAME).write_bytes(b"the fi\0e")
    said: list[str] = []
    assert model_file(None, said.append).read_bytes() == whole
    assert "is damaged; it is replaced" in said[0]
    assert model_file(None, pytest.fail) == cache / NAME


def test_a_damaged_cache_without_a_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDCLR_OFFLINE", "1")
    cache.mkdir()
    (cache / NAME).write_bytes(b"half")
    with pytest.raises(HandclrError, match="is damaged, and HANDCLR_OFFLINE forbids") as error:
        model_file(None, lambda line: None)
    assert URL in advice(error) and (cache / NAME).read_bytes() == b"half"


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HANDCLR_CACHE", "/a")
    assert cache_folder() == Path("/a")
    monkeypatch.setenv("HANDCLR_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_folder() == Path("/b/handclr")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "handclr"


def test_offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDCLR_OFFLINE", "1")
    with pytest.raises(HandclrError) as error:
        model_file(None, pytest.fail)
    assert "HANDCLR_OFFLINE" in advice(error) and not cache.exists()


def test_download(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_download", lambda: published(b"the file", monkeypatch))
    said: list[str] = []
    assert model_file(None, said.append).read_bytes() == b"the file"
    assert len(said) == 1 and visible(cache) == [NAME]


def test_download_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(b"a login page"))
    with pytest.raises(OSError, match="checksum"):
        module._download()


@pytest.mark.parametrize("failure", [OSError("no network"), http.client.IncompleteRead(b"half")])
def test_wheel_route(cache: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail() -> bytes:
        raise failure

    networks = {
        name: (member, hashlib.sha256(name.encode()).hexdigest())
        for name, (member, _) in NETWORKS.items()
    }
    monkeypatch.setattr(module, "NETWORKS", networks)
    monkeypatch.setattr(module, "_download", fail)
    wheel = wheel_of({member: name.encode() for name, (member, _) in networks.items()})
    monkeypatch.setattr(subprocess, "run", pip_that_leaves(wheel))
    said: list[str] = []
    path = model_file(None, said.append)
    assert len(said) == 2 and visible(cache) == [NAME]
    assert checksums(path) == {name: checksum for name, (_, checksum) in networks.items()}
    with zipfile.ZipFile(path) as task:
        assert {entry.compress_type for entry in task.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize(
    ("wheel", "reason"),
    [
        (
            wheel_of({member: b"other networks" for member, _ in NETWORKS.values()}),
            "unexpected checksum",
        ),
        (wheel_of({"mediapipe/__init__.py": b""}), "palm_detection_full.tflite"),
        (b"no wheel at all", "not a zip file"),
        (None, "ERROR: No matching distribution"),
    ],
    ids=["checksum", "member", "damaged", "pip failed"],
)
def test_bad_wheel(
    cache: Path, monkeypatch: pytest.MonkeyPatch, wheel: bytes | None, reason: str
) -> None:
    stderr = "looking\nERROR: No matching distribution found\n"
    monkeypatch.setattr(subprocess, "run", pip_that_leaves(wheel, stderr))
    with pytest.raises(HandclrError) as error:
        model_file(None, lambda line: None)
    assert reason in advice(error) and visible(cache) == []


def test_without_pip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args: Any, **options: Any) -> None:
        raise FileNotFoundError("no python")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(HandclrError) as error:
        model_file(None, lambda line: None)
    assert "no python" in advice(error) and visible(cache) == []


def test_cache_that_cannot_be_made(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(HandclrError, match="cannot write the cache folder"):
        model_file(None, pytest.fail)


@pytest.mark.skipif(os.name == "nt", reason="no lock there; fetching twice is harmless")
@pytest.mark.slow
def test_two_that_want_it_at_once_fetch_it_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []
    whole = published(b"the file", monkeypatch)

    def download() -> bytes:
        fetched.append(1)
        time.sleep(0.3)
        return whole

    monkeypatch.setattr(module, "_download", download)
    threads = [
        threading.Thread(target=model_file, args=(None, lambda line: None)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1 and (cache / NAME).read_bytes() == b"the file"


@pytest.mark.parametrize(
    "content", [b"text", b"", wheel_of({"other": b""})], ids=["text", "empty", "other zip"]
)
def test_checksums_of_a_wrong_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.task"
    path.write_bytes(content)
    with pytest.raises(HandclrError, match="not a MediaPipe hand landmarker") as error:
        checksums(path)
    assert URL in str(error.value)


@pytest.mark.landmarker
def test_fetched_file_holds_the_networks(landmarker_file: Path) -> None:
    assert checksums(landmarker_file) == {
        name: checksum for name, (_, checksum) in NETWORKS.items()
    }


@pytest.mark.parametrize("how", ["option", "variable", "wrong file", "offline"])
@pytest.mark.slow
def test_command_line_says_it_in_one_line(handclr: Handclr, tmp_path: Path, how: str) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"")
    (tmp_path / "wrong.task").write_text("no landmarker")
    missing = str(tmp_path / "missing.task")
    option = {"option": missing, "wrong file": str(tmp_path / "wrong.task")}.get(how)
    env = {
        "variable": {"HANDCLR_LANDMARKER": missing},
        "offline": {"HANDCLR_OFFLINE": "1", "HANDCLR_CACHE": str(tmp_path / "none")},
    }.get(how)
    command = (
        "extract",
        "clip.mp4",
        "-o",
        "out.tar",
        *(["--landmarker", option] if option else []),
    )
    done = handclr(*command, env=env, cwd=tmp_path)
    (line,) = lines(done.stderr)
    assert (done.returncode, done.stdout) == (1, b"") and line.startswith("handclr: error: ")
    assert {"wrong file": "not a MediaPipe", "offline": URL}.get(how, "no landmarker at") in line
    assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "wrong.task"]
