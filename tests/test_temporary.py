"""Temporary files are nobody else's, and do not outlive their writer for long."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from shard_helpers import cli_env

from handclr_cli.contract import temporary
from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.output import append_lines, atomic_write
from handclr_cli.contract.temporary import NAME, lock_file, temporary_file, temporary_folder

WRITER = """
import sys, time
from pathlib import Path
from handclr_cli.contract import temporary
with getattr(temporary, sys.argv[1])(Path(sys.argv[2])):
    print("writing", flush=True)
    time.sleep(60)
"""


def writer(how: str, target: Path) -> subprocess.Popen[str]:
    """A process that has begun to write to `target` and does not end."""
    command = [sys.executable, "-c", WRITER, how, str(target)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=cli_env())
    assert process.stdout and process.stdout.readline() == "writing\n"
    return process


@pytest.fixture
def x(tmp_path: Path) -> Path:
    return tmp_path / "x"


def left(target: Path) -> list[str]:
    return sorted(name for name in os.listdir(target.parent) if NAME.fullmatch(name))


@pytest.fixture(params=["temporary_file", "temporary_folder"])
def living(request: pytest.FixtureRequest, x: Path) -> Iterator[subprocess.Popen[str]]:
    process = writer(request.param, x)
    yield process
    process.kill()
    process.wait()
    assert process.stdout
    process.stdout.close()


def test_what_a_dead_writer_left_goes_with_the_next_one(
    living: subprocess.Popen[str], x: Path
) -> None:
    (theirs,) = left(x)
    for name in ("y", "x.tar", ".x"):  # of other targets, which may be in use
        with temporary_file(x.with_name(name)):
            assert theirs in left(x)
    with temporary_file(x):
        assert len(left(x)) == 2  # its writer lives
    living.send_signal(signal.SIGKILL)
    living.wait()
    with temporary_file(x.with_name("y")):
        assert theirs in left(x)
    with temporary_folder(x) as ours:
        assert left(x) == [ours.name]
    assert left(x) == []


def test_two_writers_of_one_target_do_not_meet(x: Path) -> None:
    with temporary_file(x) as first, temporary_file(x) as second:
        assert first.name != second.name and len(left(x)) == 2
        first.write(b"first")
        second.write(b"second")
    assert left(x) == []


def test_a_name_that_is_there_is_not_written_to(x: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = x.with_name("film.mp4")
    film.write_bytes(b"film")
    monkeypatch.setattr(temporary.os, "urandom", bytes)
    link = x.with_name(f".x.tmp-{temporary._kernel()}{'0' * 16}")
    link.symlink_to(film)
    with pytest.raises(HandclrError, match="cannot write .*: File exists"), atomic_write(x, "tar"):
        pytest.fail("not reached")
    assert film.read_bytes() == b"film"


def test_links_are_followed_neither_by_logs_nor_by_locks(x: Path) -> None:
    x.symlink_to(x.with_name("elsewhere"))
    with pytest.raises(HandclrError, match="cannot write"):
        append_lines(x, ["line"])
    with pytest.raises(OSError), lock_file(x, wait=False):
        pytest.fail("not reached")
    assert not x.exists()


def test_what_another_machine_left_is_given_a_day(x: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = x.with_name(f".x.tmp-{'a' * 24}")
    for hours in (0, 23):
        theirs.touch()
        os.utime(theirs, (theirs.stat().st_mtime - hours * 3600,) * 2)
        with temporary_file(x):
            assert len(left(x)) == 2
    os.utime(theirs, (theirs.stat().st_mtime - 7200,) * 2)
    with temporary_file(x):
        assert len(left(x)) == 1
    # Where there are no locks, nobody is known to be dead.
    theirs.touch()
    os.utime(theirs, (0, 0))
    monkeypatch.setattr(temporary, "_lock", lambda descriptor, wait: False)
    with temporary_file(x):
        assert len(left(x)) == 2


def test_what_others_named_is_left(x: Path) -> None:
    others = [".x.tmp-123", ".x.tmp-notes.txt", f".y.tmp-{'0' * 24}", f"x.tmp-{'0' * 24}"]
    for name in others:
        x.with_name(name).touch()
    with temporary_file(x):
        pass
    assert sorted(os.listdir(x.parent)) == sorted(others)


def test_swept_between_making_and_locking_another_one_is_made(
    x: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, calls = temporary._lock, []

    def late(descriptor: int, wait: bool) -> bool:
        calls.append(descriptor)
        if len(calls) == 1:
            (x.parent / left(x)[0]).unlink()
        return lock(descriptor, wait)

    monkeypatch.setattr(temporary, "_lock", late)
    with temporary_file(x) as file:
        assert left(x) == [os.path.basename(file.name)] and len(calls) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_hold_its_parents_locks(x: Path) -> None:
    read, write = os.pipe()
    child = 0
    with temporary_file(x) as file:
        file.write(b"begun, ")
        child = os.fork()
        if not child:
            file.write(b"of the child")
            file.close()
            os.read(read, 1)
            os._exit(0)
        file.write(b"done")
        file.seek(0)
        assert file.read() == b"begun, done"
    with lock_file(x, wait=False) as locked:
        assert locked
    os.write(write, b".")
    assert os.waitpid(child, 0)[1] == 0
    os.close(read)
    os.close(write)


def test_a_lock_is_held_by_one_and_leaves_no_file(x: Path) -> None:
    with lock_file(x, wait=False) as locked:
        assert locked
        with pytest.raises(BlockingIOError), lock_file(x, wait=False):
            pytest.fail("not reached")
        waited: list[bool] = []

        def wait() -> None:
            with lock_file(x, wait=True) as locked:
                waited.append(locked)

        other = threading.Thread(target=wait)
        other.start()
        assert not waited
    other.join(10)
    assert waited == [True] and not x.exists()


def test_a_new_file_has_the_mode_of_any_other(x: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_write(x, "tar") as file:
            file.write(b"data")
    finally:
        os.umask(old)
    assert stat.S_IMODE(x.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["n" * 250, "ä" * 120, "n\n\x1b"])
def test_names_that_leave_no_room_or_are_odd(x: Path, name: str) -> None:
    target = x.with_name(name)
    for text in (b"one", b"two"):
        with atomic_write(target, "cached") as file:
            assert len(left(x)) == 1
            file.write(text)
    assert os.listdir(x.parent) == [name] and target.read_bytes() == b"two"
