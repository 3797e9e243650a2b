"""A final name means complete."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

import pytest
from shard_helpers import cli_env

from handclr_cli.contract import temporary
from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.output import atomic_write, output_file, refuse_terminal


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_name_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with atomic_write(target, "json") as file:
        file.write(b"new")
        assert not target.exists()
        (temporary,) = names_in(tmp_path)
        assert temporary.startswith(".x.tmp-")
    assert names_in(tmp_path) == ["x"]
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "x").write_bytes(b"old")
    for name in ("x", "y"):
        with pytest.raises(error), atomic_write(tmp_path / name, "cached") as file:
            file.write(b"new")
            raise error
    assert names_in(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_signal_while_the_file_is_opened_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path, mode: str) -> NoReturn:
        open(path, mode).close()
        raise KeyboardInterrupt

    monkeypatch.setattr(temporary, "open", opened, raising=False)
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "x", "cached"):
        pytest.fail("not reached")
    assert names_in(tmp_path) == []


def test_replacing(tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        with output_file(str(tmp_path / "x"), "cached") as file:
            file.write(text)
    assert (tmp_path / "x").read_bytes() == b"two"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "real").write_bytes(b"old")
    (tmp_path / "x").symlink_to("store/real")
    with atomic_write(tmp_path / "x", "cached") as file:
        file.write(b"new")
    assert (tmp_path / "x").is_symlink()
    assert (tmp_path / "store" / "real").read_bytes() == b"new"


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "x", tmp_path / "gone" / "x"):
        with pytest.raises(HandclrError, match="^cannot write .*x: "), atomic_write(path, "cached"):
            pytest.fail("the block must not run")
    assert names_in(tmp_path) == ["file"]
    with pytest.raises(HandclrError, match="Is a directory"), atomic_write(tmp_path, "cached"):
        pytest.fail("the block must not run")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_device_is_named() -> None:
    with (
        pytest.raises(HandclrError, match="cannot write /dev/full: No space left"),
        atomic_write("/dev/full", "tar") as file,
    ):
        file.write(b"x" * 100_000)


def test_a_named_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "fifo").read_bytes()))
    reader.start()
    with atomic_write(tmp_path / "fifo", "tar") as file:
        file.write(b"through")
    reader.join()
    assert read == [b"through"]
    assert names_in(tmp_path) == ["fifo"]


WRITER = (
    "import sys; from handclr_cli.contract.output import output_file\n"
    "with output_file(sys.argv[1], 'tar') as file: file.write(b'data')"
)


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
def test_standard_output_by_any_name(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", WRITER, name], capture_output=True, env=cli_env())
    assert (done.stdout, done.stderr) == (b"data", b"")


def test_process_substitution(tmp_path: Path) -> None:
    subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{WRITER}" >(cat > "{tmp_path}/x"); wait $!'],
        env=cli_env(),
    )
    assert (tmp_path / "x").read_bytes() == b"data"


def test_a_terminal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with pytest.raises(UsageError, match="refusing to write binary data"):
        refuse_terminal()
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(HandclrError, match="standard output is closed"):
        refuse_terminal()
