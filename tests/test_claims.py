"""No output of any command is one of its inputs, another of its outputs, or of another kind."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import numpy as np
import pytest
import typer
from shard_helpers import CLI, cli_env, error_line, run_cli

from handclr_cli import main
from handclr_cli.contract.claims import Read, Reads, Word, Writes, Written, refuse_conflicts
from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.kinds import FILM_MARK, KINDS, refuse_other_kind


class Order(NamedTuple):
    """A command of the tree, by its words."""

    words: tuple[str, ...]
    command: Any

    def marked(self, kind: type) -> list[tuple[Any, Any]]:
        """Its parameters with a mark of this kind, and the marks."""
        marks, found = self.command.marks(), []
        for param in self.command.params:
            found += [(param, mark) for mark in marks.get(param.name, ()) if isinstance(mark, kind)]
        return found

    def run(self, *given: tuple[Any, object]) -> None:
        """Run it in this process with values of parameters, and of whatever else it requires."""
        there = [param for param, _ in given]
        lacking = [param for param in self.command.params if param.required and param not in there]
        words = list(self.words)
        for param, value in (*given, *((param, "required") for param in lacking)):
            option = param.opts[:1] if param.opts[0][0] == "-" else []
            words += [*option, *[str(value)] * max(param.nargs, 1)]
        APP.main(words, prog_name="handclr", standalone_mode=False)


def tree() -> Iterator[Order]:
    def visit(command: Any, words: tuple[str, ...]) -> Iterator[Order]:
        if hasattr(command, "commands"):
            for name, inner in command.commands.items():
                yield from visit(inner, (*words, name))
        else:
            yield Order(words, command)

    return visit(APP, ())


APP: Any = typer.main.get_command(main.app)
ORDERS = list(tree())


def words_of(order: Order) -> str:
    return "-".join(order.words)


@pytest.mark.parametrize("order", ORDERS, ids=words_of)
def test_each_option_of_text_says_whether_it_is_a_file(order: Order) -> None:
    unmarked = []
    for name, hint in get_type_hints(order.command.callback, include_extras=True).items():
        kind, *marks = get_args(hint) or (hint,)
        texts = {kind, *get_args(kind), *itertools.chain(*map(get_args, get_args(kind)))}
        marked = any(isinstance(mark, Reads | Writes | Word) for mark in marks)
        if texts & {str, Path} and not marked:
            unmarked.append(name)
    assert unmarked == []


def as_it_is(path: Path) -> Path:
    return path


def spelled(path: Path) -> str:
    return f"{path.parent}/./../{path.parent.name}/{path.name}"


def linked(path: Path) -> Path:
    link = path.with_name(f"link-{path.name}")
    link.symlink_to(path.name)
    return link


def hard_linked(path: Path) -> Path:
    link = path.with_name(f"hard-{path.name}")
    os.link(path, link)
    return link


# A file of options too, and of no kind that is written.
UNIQUE = b"seed = 77\n"
Spelling = Callable[[Path], Path | str]


@pytest.mark.parametrize("way", [as_it_is, spelled, linked, hard_linked])
@pytest.mark.parametrize("order", ORDERS, ids=words_of)
def test_no_output_is_an_input(order: Order, way: Spelling, tmp_path: Path) -> None:
    pairs = itertools.product(order.marked(Reads), order.marked(Writes))
    for number, ((read, _), (written, mark)) in enumerate(pairs):
        if mark.once:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        film = folder / (mark.files[0][0] if mark.files else "same.mp4")
        film.write_bytes(UNIQUE)
        target = folder if mark.files or mark.whole else way(film)
        if mark.whole and way is hard_linked:
            target = folder / "run"
            target.mkdir()
            os.link(film, target / "encoder.pt")
        with pytest.raises(UsageError, match="is an input") as caught:
            order.run((written, target), (read, film))
        assert caught.value.setting == written.name
        assert film.read_bytes() == UNIQUE


@pytest.mark.parametrize("order", ORDERS, ids=words_of)
def test_no_output_replaces_a_file_of_another_kind(order: Order, tmp_path: Path) -> None:
    for written, mark in order.marked(Writes):
        if mark.whole or mark.once:
            continue
        for name, kind in mark.files or (("notes", mark.kind),):
            (tmp_path / name).write_text("# Notes of three years\n")
            named = tmp_path if mark.files else tmp_path / name
            with pytest.raises(UsageError, match=f"exists and is not {KINDS[kind].name}; name"):
                order.run((written, named))
            (tmp_path / name).unlink()


@pytest.mark.parametrize("order", ORDERS, ids=words_of)
def test_no_two_outputs_are_one_file(order: Order, tmp_path: Path) -> None:
    outputs = [param for param, mark in order.marked(Writes) if not (mark.whole or mark.files)]
    for first, second in itertools.combinations(outputs, 2):
        with pytest.raises(UsageError, match="the same file is given for two outputs"):
            order.run((first, tmp_path / "new"), (second, spelled(tmp_path / "new")))


def claim(read: str, mark: Reads, written: str, what: Writes) -> None:
    refuse_conflicts([Read("shards", read, mark)], [Written("output", written, what)])


def test_patterns_and_folders_are_what_they_stand_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for name in ("in/x-000.tar", "in/x-001.tar"):
        Path(name).write_bytes(bytes(1024))
    tar, one = Reads(".tar"), "in/x-001.tar"
    here = f"file://{tmp_path}"
    names = ("in", "in/x-*.tar", "in/x-{000..001}.tar", one)
    for read in (*names, *(f"{here}/{name}" for name in names)):
        with pytest.raises(UsageError, match="is an input"):
            claim(read, tar, one, Writes("tar"))
    with pytest.raises(UsageError, match=r"in/x-001\.tar is an input"):
        claim(one, tar, "in/x-%03d.tar", Writes("tar"))
    claim("in", tar, "in/new.tar", Writes("tar"))
    claim("in/x-000.tar", tar, one, Writes("tar"))
    claim("in/gone-{9..7}.tar", tar, one, Writes("tar"))
    claim("pipe:cat in/x-001.tar", tar, one, Writes("tar"))
    Path("in/sheet.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    claim("in", tar, "in/sheet.png", Writes("png"))
    for deep in ("in", f"{here}/in"):
        with pytest.raises(UsageError, match="is an input"):  # a picture of a data set
            claim(deep, Reads(deep=True), "in/sheet.png", Writes("png"))


def test_a_run_holds_none_of_its_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("store").mkdir()
    Path("runs/a/in").mkdir(parents=True)
    for name in ("store/encoder.pt", "runs/a/in/x.tar"):
        Path(name).write_bytes(b"")
    Path("runs/a/encoder.pt").symlink_to(tmp_path / "store/encoder.pt")
    run = Writes(whole=True)
    for read in ("runs/a/encoder.pt", "runs/a/in", "runs/a/in/x.tar", "runs/a"):
        with pytest.raises(UsageError, match="lies in this folder, which is written to"):
            claim(read, Reads(".tar"), "runs/a", run)
    with pytest.raises(UsageError, match="is an input"):  # which is written to through the link
        claim("store/encoder.pt", Reads(), "runs/a", run)
    claim("store/encoder.pt", Reads(), "runs/b", run)
    claim("runs", Reads(".tar"), "runs/b", run)


def test_one_output_among_the_shards_of_another(tmp_path: Path) -> None:
    shards = Written("output", f"{tmp_path}/x-%03d.tar", Writes("tar"))
    report = Written("report", f"{tmp_path}/./x-007.tar", Writes("json"))
    with pytest.raises(UsageError, match="the same file is given for two outputs"):
        refuse_conflicts([], [shards, report])
    refuse_conflicts([], [shards, Written("report", f"{tmp_path}/x.json", Writes("json"))])


def test_an_index_is_read_where_it_is_there(tmp_path: Path) -> None:
    index = Written("index", str(tmp_path / "pool.npz"), Writes("npz", once=True))
    pairs = Written("output", str(tmp_path / "pool.npz"), Writes("npz"))
    with pytest.raises(UsageError, match="the same file is given for two outputs"):
        refuse_conflicts([], [index, pairs])
    (tmp_path / "pool.npz").write_bytes(b"an index")
    with pytest.raises(UsageError, match="is an input"):
        refuse_conflicts([], [index, pairs])
    refuse_conflicts([Read("pose", str(tmp_path / "pool.npz"), Reads(".npz"))], [index])


def test_kinds(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    np.savez(made / "npz", meta=np.zeros(1))
    os.rename(made / "npz.npz", made / "npz")
    with zipfile.ZipFile(made / "checkpoint", "w") as checkpoint:
        checkpoint.writestr("archive/data.pkl", b"")
    texts = {
        "tar": bytes(1024),
        "png": b"\x89PNG\r\n\x1a\n....",
        "json": b' \n{"a": 1}\n',
        "scores": b"xyz_mean3d: 1.234567\n",
        "results": b"0" + 63 * b",-1.5" + b"\n",
        "html": b"<!doctype html>\n<p>",
        "mp4": b"\0\0\0\x20ftypisom...",
        "film": b"\0\0\0\x20ftypisom..." + FILM_MARK,
        "onnx": bytes.fromhex("080a12077079746f726368"),
        "csv": b"video,frame,time_s,hand,score,track,wrist_x,wrist_y\n",
        "jsonl": b'{"video":"a.mp4","frame":0}\n',
    }
    also = {("mp4", "film"), ("table", "csv"), ("table", "jsonl"), ("table", "npz")}
    also.add(("json", "jsonl"))  # its first line is JSON
    for kind, data in texts.items():
        (made / kind).write_bytes(data)
    for kind, other in itertools.product(KINDS.keys() - {"cached"}, [*texts, "npz", "checkpoint"]):
        if kind == other or (kind, other) in also:
            refuse_other_kind(made / other, kind)
        else:
            with pytest.raises(HandclrError, match=f"{other} exists and is not {KINDS[kind].name}"):
                refuse_other_kind(made / other, kind)
    (made / "empty").touch()
    for kind in KINDS:
        refuse_other_kind(made / "empty", kind)
        refuse_other_kind(made / "gone", kind)
        refuse_other_kind("/dev/null", kind)


@pytest.mark.slow
def test_from_a_shell(tmp_path: Path) -> None:
    """What a wildcard makes of a forgotten name of the output, and both streams of one file."""
    films = []
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        films.append(tmp_path / name)
        films[-1].write_bytes(b"\0\0\0\x20ftypisom " + name.encode())
    done = run_cli("extract", "--fps", 1, "-o", *films)
    line = error_line(done, 2)
    assert line.startswith(f"--output {films[0]}: exists and is not a tar; name another")
    assert films[0].read_bytes() == b"\0\0\0\x20ftypisom a.mp4"
    (tmp_path / "poses.npz").write_bytes(b"poses")
    with open(tmp_path / "poses.npz", "ab") as out:
        command = [*CLI, "mine", str(tmp_path / "poses.npz")]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, env=cli_env())
    assert error_line(done, 2) == "--output -: is an input of this command; name another output"
    assert (tmp_path / "poses.npz").read_bytes() == b"poses"


def test_a_folder_of_official_results_is_one_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "pred.json").write_text(json.dumps([[], []]))
    written = Written(
        "freihand", str(tmp_path), Writes(files=(("pred.json", "json"), ("scores.txt", "scores")))
    )
    refuse_conflicts([], [written])
    (tmp_path / "scores.txt").write_text("my scores\n")
    with pytest.raises(UsageError, match=r"scores\.txt exists and is not FreiHAND's"):
        refuse_conflicts([], [written])
