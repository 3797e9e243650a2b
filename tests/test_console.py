"""What comes from files is printed escaped, in lines of a greatest length."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from shard_helpers import jpeg, pose_arrays, run_cli, tar_bytes

from handclr_cli import console
from handclr_cli.contract.sample import Sample
from handclr_cli.evaluation.protocols import DEFINITIONS
from handclr_cli.evaluation.scoring import UNFOUND
from handclr_cli.hand.alignment import Alignment
from handclr_cli.report.score_table import print_comparison, print_scores

# Colours, a window title, a one-byte CSI, text from right to left, ends of lines, markup.
HOSTILE = "a\x1b[31m\x1b]0;pwn\x07\x9b2J\u202e\u2066\n\r\u2028[bold red]:smile:[/nothing]"
SHOWN = "a\\x1b[31m\\x1b]0;pwn\\x07\\x9b2J\\u202e\\u2066"
LONG = f"{HOSTILE}{'k' * 5000}"


def is_plain(data: bytes) -> bool:
    """Whether there are lines of visible characters only, none much longer than is said."""
    text = data.decode()
    lines = text.split("\n")
    return all(line.isprintable() and len(line) < console.LONGEST + 100 for line in lines)


def test_printable() -> None:
    assert console.printable("ü 手 (1).mp4") == "ü 手 (1).mp4"
    assert console.printable(HOSTILE).startswith(SHOWN)
    assert console.printable(HOSTILE).endswith("\\n\\r\\u2028[bold red]:smile:[/nothing]")
    assert console.printable("\udc80\u200f\xa0") == "\\udc80\\u200f\\xa0"
    assert console.printable(console.printable(HOSTILE)) == console.printable(HOSTILE)


def test_a_long_line_loses_its_middle() -> None:
    assert console.shortened("x" * 500) == "x" * 500
    line = console.one_line(f"run holds another ({'k was 1, now 2; ' * 900});\n  start it anew")
    assert len(line) == 500 and " ... " in line
    assert line.startswith("run holds another (k was") and line.endswith("; ); start it anew")
    for most in range(6, 12):
        assert len(console.shortened("abcdefghijklmnop", most)) == most


def test_json_for_a_terminal_is_the_same_json() -> None:
    value = {HOSTILE: [LONG, "手", "\U000e0001", 1.5, None]}
    text = console.json_text(value)
    assert json.loads(text) == value and "手" in text
    assert all(line.isprintable() for line in text.split("\n"))


def test_messages(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.State, "stderr", None)
    console.say(f"pca: {LONG}")
    console.warn(f"{LONG}: no JPEG; skipped")
    console.say(f"[1/2] {'word ' * 500}", whole=True)
    said, warned, whole, rest = capsys.readouterr().err.split("\n")
    assert said.startswith(f"pca: {SHOWN}") and len(said) == 500
    assert warned.startswith(f"handclr: warning: {SHOWN}")
    assert warned.endswith("kkk: no JPEG; skipped")
    assert len(whole) > 2500 and rest == ""


class Screen(io.StringIO):
    """What a terminal gets to show."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    screen = Screen()
    monkeypatch.setattr(console.State, "stderr", screen)
    monkeypatch.setattr(console.State, "quiet", False)
    monkeypatch.setenv("TERM", "xterm")
    return screen


TRAINING = {"loss": "3.4567", "top1": "0.1234", "alignment": "0.5678", "uniformity": "-1.2345"}


@pytest.mark.parametrize(
    ("columns", "beside"),
    [(60, ""), (80, " loss 3.4567"), (160, " ".join(f"{k} {v}" for k, v in TRAINING.items()))],
)
def test_the_bar_keeps_count_and_time_left_before_what_is_shown_beside(
    columns: int, beside: str, terminal: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with console.progress("pretrain", 117_700, "steps", done=1300) as advance:
        advance(25, **TRAINING, **{"images/s": "1234"})
        time.sleep(0.01)
        advance(25)
    *_, line = (line for line in re.split(r"[\r\n]", terminal.getvalue()) if "1350/" in line)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line)
    assert len(text) <= columns
    told = rf"pretrain [━╸╺ ]+1350/117700 steps \d:\d\d:\d\d \d:\d\d:\d\d.*{re.escape(beside)}"
    assert re.match(told, text), text


def test_the_bar_knows_no_markup(terminal: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    with console.progress("[red]label", 2, "[b]units") as advance:
        advance(1, value="[/i]x\x1b[2J")
    shown = terminal.getvalue()
    assert all(text in shown for text in ("[red]label", "[b]units", "[/i]x\\x1b[2J"))


def test_tables_know_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"mpjpe_mm": 1.0, "mpjpe_mm_interval": [0.5, 1.5]}
    row |= {"pck_auc": {"0-50mm": 0.5, "20-50mm": 0.5}}
    row |= {"pck_auc_interval": {"0-50mm": [0.4, 0.6], "20-50mm": [0.4, 0.6]}}
    scores = {"model": {"root": row}, "interval": {"units": 3, "unit": HOSTILE}, "scale": "none"}
    print_scores({**scores, "samples": 3, "crop": "[/bold]:smile:"})
    both = {"a_mpjpe_mm": 1.0, "b_mpjpe_mm": 2.0, "b_minus_a_mm": 1.0}
    both |= {"b_minus_a_interval": [0.5, 1.5], "resamples_with_b_better": 0.0}
    compared = {"comparison": {"root": both}, "interval": {"units": 3}, "samples": 3}
    print_comparison({**compared, "a": "[red]a.npz", "b": HOSTILE})
    shown = capsys.readouterr().out
    assert is_plain(shown.encode()) and "[/bold]:smile:" in shown and "[red]a.npz" in shown
    assert "[/nothing]" in shown and "1.00 [0.50, 1.50]" in shown


def test_tables_are_whole_on_a_terminal_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the widest numbers, with all that a report may say."""
    ends, areas = [-999.994, 999.994], ("0-50mm", "20-50mm")
    near = {"mpjpe_mm": 999.994, "mpjpe_mm_interval": [999.994] * 2}
    near |= {"pck_auc": dict.fromkeys(areas, 0.5)}
    near |= {"pck_auc_interval": {name: [0.0, 1.0] for name in areas}}
    far = {**near, "mpjpe_mm": 12345.678, "mpjpe_mm_interval": [1000.25, 23456.5]}
    both = {"a_mpjpe_mm": 999.994, "b_mpjpe_mm": 12345.678, "b_minus_a_mm": -999.994}
    both |= {"b_minus_a_interval": ends, "resamples_with_b_better": 1.0}
    names = get_args(Alignment)
    report = {"model": {**dict.fromkeys(names, near), "none": far}, "samples": 123456}
    report |= {"mean_pose_of_training_set": dict.fromkeys(names, near), "crop": "a word " * 40}
    report |= {"interval": {"unit": "sequence", "units": 123456}, "scale": "a word " * 40}
    report |= {"hands_found": {"samples": 9, "others": UNFOUND}}
    report |= {"depth_sigma": {"median_mm": 12.34, "wrists_within": 0.5}}
    report |= {"official": {name: {"xyz_al_mean3d": 1.0} for name in DEFINITIONS}}
    print_scores({**report, "official_definitions": DEFINITIONS})
    compared = {"comparison": dict.fromkeys(names, both), "interval": {"units": 3}, "samples": 3}
    print_comparison({**compared, "a": "a word " * 40, "b": "b.npz"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 50 and max(map(len, lines)) <= 80
    assert any("12346 [1000, 23456]" in line for line in lines)


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    samples = []
    for number, key in enumerate((HOSTILE, LONG, "b\x1b[2Jx_00000002_r")):
        info = {"video": key, "frame": number, "hand": HOSTILE, "box": [0, 0, 9, 9]}
        members = {"jpg": jpeg() if number else b"junk", "json": json.dumps(info).encode()}
        samples.append(Sample(key.replace("/", "|"), members))
    path = tmp_path / "c\x1b[2J[red]\n.tar"
    path.write_bytes(tar_bytes(samples))
    return path


PECLR = ("--method", "peclr", "--arch", "resnet18", "--size", "32", "--batch", "2", "--epochs", "1")


@pytest.mark.slow
def test_commands_print_no_commands_for_terminals(crops: Path, tmp_path: Path) -> None:
    poses, sheet = tmp_path / "p\x1b[2J.npz", tmp_path / "sheet.png"
    arrays = pose_arrays((0, 0, 1))
    arrays["key"] = np.array([HOSTILE.encode()] * 3)  # three times the same
    np.savez(poses, **arrays)
    said = []
    for command in (
        ("inspect", crops, poses, "--sheet", sheet),
        ("inspect", crops, "--skipped", "--json"),
        ("pca", crops),
        ("mine", poses),
        ("evaluate", crops, "--predictions", poses),
        ("finetune", crops, "--run", tmp_path / "run"),
        ("pretrain", crops, *PECLR, "--run", tmp_path / "run"),
        ("extract", crops),
        ("pca", tmp_path / LONG[:200].replace("/", "|")),
        ("pca", crops, "--basis", LONG[:200]),
        ("--debug" + LONG,),
    ):
        done = run_cli(*command)
        assert done.returncode != 141 and b"Traceback" not in done.stderr
        printed = b"" if command[0] in ("pca", "extract") else done.stdout
        assert is_plain(printed) and is_plain(done.stderr), command
        said.append(done.stderr)
    assert b"\\x1b[2J" in b"".join(said)


def test_a_traceback_is_escaped() -> None:
    code = (
        "from handclr_cli import main, console; console.State.debug = True\n"
        "try: raise ValueError('a\\x1b[2J')\n"
        "except ValueError as error: main._fail(str(error), 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 1 and b"ValueError: a\\x1b[2J" in done.stderr
    assert is_plain(done.stderr)
