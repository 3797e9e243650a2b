"""What may be named as input."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.inputs import expand_inputs, open_seekable, open_source


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [
        "s-010.tar",
        "s-009.tar",
        "s-008.tar",
        ".hidden.tar",
        "notes.txt",
        "x.npz",
        "w[1].tar",
    ]:
        (tmp_path / name).touch()
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_stay_in_their_order(folder: Path) -> None:
    assert expand_inputs(["x.npz", "s-010.tar", "s-009.tar"]) == ["x.npz", "s-010.tar", "s-009.tar"]


def test_folders(folder: Path) -> None:
    assert expand_inputs([str(folder)]) == [
        str(folder / name) for name in ("s-008.tar", "s-009.tar", "s-010.tar", "w[1].tar")
    ]
    assert expand_inputs(["."], ".npz") == ["./x.npz"]
    with pytest.raises(UsageError, match=r"none: no \.tar file in this folder"):
        expand_inputs(["none"])


def test_globs(folder: Path) -> None:
    assert expand_inputs(["s-*.tar", "x.*"]) == ["s-008.tar", "s-009.tar", "s-010.tar", "x.npz"]
    assert expand_inputs(["s-00[89].tar"]) == ["s-008.tar", "s-009.tar"]
    assert expand_inputs(["w[1].tar"]) == ["w[1].tar"]
    with pytest.raises(UsageError, match=r"t-\*\.tar: nothing matches"):
        expand_inputs(["t-*.tar"])


def test_brace_ranges(folder: Path) -> None:
    assert expand_inputs(["s-{008..010}.tar"]) == ["s-008.tar", "s-009.tar", "s-010.tar"]
    for first in "ab":
        for second in (9, 10):
            (folder / f"p{'ab'.index(first)}-{second}.tar").touch()
    assert expand_inputs(["p{0..1}-{9..10}.tar"]) == [
        "p0-9.tar",
        "p0-10.tar",
        "p1-9.tar",
        "p1-10.tar",
    ]
    assert expand_inputs(["s-{008..009}.t*"]) == ["s-008.tar", "s-009.tar"]
    (folder / "{1..2}.tar").touch()
    assert expand_inputs(["{1..2}.tar"]) == ["{1..2}.tar"]
    with pytest.raises(UsageError, match=r"^s-011\.tar: no such file"):
        expand_inputs(["s-{010..011}.tar"])
    with pytest.raises(UsageError, match=r"s-\{010\.\.008\}\.tar: the range counts down"):
        expand_inputs(["s-{010..008}.tar"])


@pytest.mark.parametrize("last", ["1000000", "9" * 30, "9" * 5_000])
def test_a_range_without_end_is_refused_at_once(folder: Path, last: str) -> None:
    with pytest.raises(UsageError, match=r"a range of more than 1,000,000 names"):
        expand_inputs([f"s-{{0..{last}}}.tar"])


def test_missing(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.tar: no such file or folder"):
        expand_inputs(["s-008.tar", "gone.tar"])


def test_urls_and_pipes_are_passed_on(folder: Path) -> None:
    sources = ["pipe:cat {0..1}", "https://example.org/x.tar?a=[1]*", "s3://bucket/a.tar"]
    assert expand_inputs(sources) == sources
    ranged = ["https://example.org/{009..010}.tar", "s3://bucket/{0..1}/a.tar"]
    assert expand_inputs(ranged) == [
        *("https://example.org/009.tar", "https://example.org/010.tar"),
        *("s3://bucket/0/a.tar", "s3://bucket/1/a.tar"),
    ]
    with pytest.raises(UsageError, match=r"^https://host/\{2\.\.1\}\.tar: the range counts down"):
        expand_inputs(["https://ann:secret@host/{2..1}.tar?key=secret"])


def test_a_file_may_be_named_by_a_url(folder: Path) -> None:
    assert expand_inputs([f"file://{folder}/s-{{008..009}}.tar"]) == [
        str(folder / name) for name in ("s-008.tar", "s-009.tar")
    ]
    with pytest.raises(UsageError, match=r"gone\.tar: no such file"):
        expand_inputs([f"file://{folder}/gone.tar"])


def test_unknown_scheme() -> None:
    with pytest.raises(HandclrError, match="cannot read nonsense://x"):
        open_source("nonsense://x")


def test_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert expand_inputs(["-"]) == ["-"]
    assert expand_inputs(["s-008.tar", "-", "x.npz"]) == ["s-008.tar", "-", "x.npz"]
    with pytest.raises(UsageError, match="only once"):
        expand_inputs(["-", "s-008.tar", "-"])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert expand_inputs([]) == ["-"]


def test_nothing_and_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(UsageError, match="no input: name files"):
        expand_inputs([])
    assert expand_inputs(["-"]) == ["-"]  # who asks for it may type a tar
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="no input"):
        expand_inputs([])


def test_usage_errors_exit_with_2() -> None:
    assert UsageError("x").exit_code == 2
    assert HandclrError("x").exit_code == 1


def test_opening(folder: Path) -> None:
    (folder / "a").write_bytes(b"abc")
    for opener in (open_source, open_seekable):
        with opener("a") as file:
            assert file.read() == b"abc"
        with pytest.raises(HandclrError, match="cannot read gone: No such file"):
            opener("gone")
    with open_seekable("pipe:cat a") as file:
        assert file.seek(1) == 1 and file.read() == b"bc"
