"""What every filter promises, whatever it computes; the tests of filters apply it to each."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import pty
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from shard_helpers import CLI, cli_env, error_line, load_npz, pose_arrays, run_cli


def read_terminal(master: int) -> bytes:
    """All that was written to a pseudo terminal, when the last writer has closed it."""
    data = b""
    with contextlib.suppress(OSError):  # Linux ends it with EIO
        while chunk := os.read(master, 1 << 16):
            data += chunk
    os.close(master)
    return data


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of a few kilobytes; skips the test where it may not be mounted."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class FilterContract:
    """A mix-in: subclasses say how the filter is called and what it reads."""

    name = ""
    suffix = ".npz"

    def arguments(self, folder: Path) -> list[str]:
        """The command line without input and output; files it names may be made in `folder`."""
        return [self.name]

    def good(self) -> bytes:
        """A small input that the filter accepts."""
        raise NotImplementedError

    def large(self) -> bytes:
        """An input whose output is larger than a pipe's buffer, 64 KiB."""
        raise NotImplementedError

    def complete(self, data: bytes) -> bool:
        """Whether an output is whole."""
        raise NotImplementedError

    def test_data_on_stdout_and_words_on_stderr(self, tmp_path: Path) -> None:
        done = run_cli(*self.arguments(tmp_path), stdin=self.good())
        assert done.returncode == 0, done.stderr
        assert self.complete(done.stdout)
        *_, summary = done.stderr.decode().splitlines()
        assert summary.startswith(f"{self.name}: ")
        assert b"\x1b" not in done.stderr

    def test_quiet_and_a_file(self, tmp_path: Path) -> None:
        output = tmp_path / "out" / f"x{self.suffix}"
        output.parent.mkdir()
        done = run_cli(*self.arguments(tmp_path), "-q", "-o", output, stdin=self.good())
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert [path.name for path in output.parent.iterdir()] == [output.name]
        assert self.complete(output.read_bytes())

    def test_empty_input(self, tmp_path: Path) -> None:
        for named in ([], ["-"]):
            done = run_cli(*self.arguments(tmp_path), *named, stdin=b"")
            assert error_line(done, 1).startswith("standard input: is empty")
            assert not self.complete(done.stdout)

    def test_truncated_input(self, tmp_path: Path) -> None:
        data = self.good()
        cut = tmp_path / f"cut{self.suffix}"
        output = tmp_path / "out"
        output.mkdir()
        done = run_cli(*self.arguments(tmp_path), stdin=data[: len(data) // 2])
        assert "standard input" in error_line(done, 1)
        assert not self.complete(done.stdout)
        cut.write_bytes(data[:-1])
        done = run_cli(*self.arguments(tmp_path), cut, "-o", output / f"x{self.suffix}")
        assert str(cut) in error_line(done, 1)
        assert list(output.iterdir()) == []

    def test_missing_file(self, tmp_path: Path) -> None:
        done = run_cli(*self.arguments(tmp_path), tmp_path / "gone.tar")
        assert error_line(done, 2).endswith("gone.tar: no such file or folder")
        assert done.stdout == b""

    def test_input_that_is_something_else(self, tmp_path: Path) -> None:
        done = run_cli(*self.arguments(tmp_path), stdin=b"just a few words\n" * 100)
        assert "standard input: not a" in error_line(done, 1)

    def test_a_terminal_gets_no_binary_data(self, tmp_path: Path) -> None:
        master, slave = pty.openpty()
        command = [*CLI, *self.arguments(tmp_path), "-q"]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=slave, stderr=subprocess.PIPE, env=cli_env()
        )
        os.close(slave)
        shown: list[bytes] = []
        reader = threading.Thread(target=lambda: shown.append(read_terminal(master)))
        reader.start()
        _, errors = process.communicate(self.good(), timeout=120)
        reader.join()
        done = subprocess.CompletedProcess(command, process.returncode, b"", errors)
        assert "refusing to write binary data to the terminal; name a file" in error_line(done, 2)
        assert shown == [b""]

    def test_a_closed_pipe(self, tmp_path: Path) -> None:
        (tmp_path / "large").write_bytes(self.large())
        command = " ".join([*CLI, *self.arguments(tmp_path)])
        script = (
            f'{command} - < "{tmp_path}/large" | head -c 1 > /dev/null; exit "${{PIPESTATUS[0]}}"'
        )
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, env=cli_env(), timeout=120
        )
        assert (done.returncode, done.stderr) == (141, b"")

    def test_output_is_the_same_beside_a_terminal(self, tmp_path: Path) -> None:
        arguments, data = self.arguments(tmp_path), self.good()
        plain = run_cli(*arguments, stdin=data)
        master, slave = pty.openpty()
        shown: list[bytes] = []
        reader = threading.Thread(target=lambda: shown.append(read_terminal(master)))
        reader.start()
        beside = subprocess.run(
            [*CLI, *arguments],
            input=data,
            stdout=subprocess.PIPE,
            stderr=slave,
            env=cli_env({"TERM": "xterm"}),
        )
        os.close(slave)
        reader.join()
        assert beside.returncode == 0
        assert beside.stdout == plain.stdout
        assert f"{self.name}: ".encode() in shown[0]

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"not a folder")
        before = sorted(tmp_path.iterdir())
        for output in (
            tmp_path / "file" / f"x{self.suffix}",
            tmp_path / "gone" / f"x{self.suffix}",
        ):
            done = run_cli(*self.arguments(tmp_path), "-o", output, stdin=self.good())
            assert error_line(done, 1).startswith(f"cannot write {output}: ")
        assert {path.name for path in before} <= {path.name for path in tmp_path.iterdir()}
        assert not (tmp_path / "gone").exists()

    def test_a_full_disk(self, tmp_path: Path) -> None:
        arguments, data = self.arguments(tmp_path), self.large()
        with small_disk(tmp_path / "disk", "32k") as disk:
            output = disk / f"x{self.suffix}"
            older = bytes(1024) if self.suffix == ".tar" else pose_file((0, 1))
            output.write_bytes(older)
            done = run_cli(*arguments, "-o", output, stdin=data)
            assert error_line(done, 1) == f"cannot write {output}: No space left on device"
            assert [path.name for path in disk.iterdir()] == [output.name]
            assert output.read_bytes() == older
        if os.path.exists("/dev/full"):
            with open("/dev/full", "wb") as full:
                command = [*CLI, *arguments]
                done = subprocess.run(
                    command, input=data, stdout=full, stderr=subprocess.PIPE, env=cli_env()
                )
            assert error_line(done, 1) == "cannot write standard output: No space left on device"

    def test_a_device_stays_a_device(self, tmp_path: Path) -> None:
        done = run_cli(*self.arguments(tmp_path), "-o", "/dev/null", stdin=self.good())
        assert done.returncode == 0
        assert not os.path.isfile("/dev/null") and os.path.exists("/dev/null")


class NpzOutput(FilterContract):
    def complete(self, data: bytes) -> bool:
        try:
            return "meta" in load_npz(data)
        except (ValueError, EOFError, OSError):
            return False


class MineContract(NpzOutput):
    name = "mine"

    def good(self) -> bytes:
        return pose_file((0, 0, 1, 1, 2))

    def large(self) -> bytes:
        return pose_file(tuple(row % 7 for row in range(3000)))


@functools.cache
def pose_file(videos: tuple[int, ...]) -> bytes:
    """A pose file without provenance, as any program may write it."""
    buffer = io.BytesIO()
    np.savez(buffer, **pose_arrays(videos))
    return buffer.getvalue()
