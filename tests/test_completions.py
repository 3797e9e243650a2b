"""Shells complete commands, options, choices and the files that fit, as the package installs it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from house import ROOT
from shard_helpers import cli_env
from terminal import Terminal

from handclr_cli.contract.claims import Reads, Writes
from handclr_cli.main import app
from handclr_cli.parsing import Command

BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
# Keys that insert all completions, here and in ZSH.
ALL_OF_BASH, ALL_OF_ZSH = "\x1b*", "\x18a"
BASH = r"""
PS1='$ '
bind 'set bell-style none'
bind -x '"\C-xd": printf "<<%s>>\n" "$READLINE_LINE"; READLINE_LINE=; READLINE_POINT=0'
printf '<<%s>>\n' ready
"""
ZSH = r"""
PS1='$ '
unsetopt beep prompt_cr prompt_sp
_show() { print -r -- "<<$BUFFER>>"; BUFFER= }
zle -N _show
bindkey '\C-xd' _show
zle -C all-matches complete-word _generic
bindkey '\C-xa' all-matches
zstyle ':completion:all-matches:*' insert yes
zstyle ':completion:all-matches::::' completer _all_matches _complete
print -r -- '<<ready>>'
"""


class Case(NamedTuple):
    """A line as typed, its last word apart, and the words that may stand in the place of that."""

    stem: str
    part: str
    words: set[str]


CASES = [
    Case("handclr ", "pre", {"predict", "pretrain"}),
    Case("handclr mine --engine ", "ex", {"exact-cpu", "exact-gpu"}),
    Case("handclr mine ", "--near-duplicates=r", {"--near-duplicates=report"}),
    Case("handclr mine --bogus x --top-k y ", "--eng", {"--engine"}),
    Case("handclr extract v/ | handclr ", "key", {"keypoints"}),
    Case("handclr pca ", "h", {"hands.tar", "held"}),
    Case("handclr pca ", '"my h', {"my hands.tar"}),
    Case("handclr pca -o ", "my\\ ", {"my hands.tar", "my hands.txt"}),
    Case("handclr predict --model ", "m", {"mediapipe", "model.pt"}),
    Case("handclr mine pose.npz > ", "p", {"pose.npz"}),
    Case("nowhere/handclr ", "pre", set()),
]
WORDS_OF_ERRORS = ("rror", "raceback", "not found", "o such file")


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder share as the wheel installs it."""
    prefix = tmp_path_factory.mktemp("prefix")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for source, target in project["tool"]["hatch"]["build"]["targets"]["wheel"][
        "shared-data"
    ].items():
        (prefix / target).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, prefix / target)
    return prefix / "share"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to complete the names of."""
    there = tmp_path / "work"
    (there / "held").mkdir(parents=True)
    for name in ("hands.tar", "hands.txt", "my hands.tar", "my hands.txt", "pose.npz", "model.pt"):
        (there / name).touch()
    return there


def environment(folder: Path, share: Path) -> dict[str, str]:
    """Of a user whose home is beside the folder, and who has handclr."""
    own = cli_env()
    path = f"{Path(sys.executable).parent}:{own['PATH']}"
    names = ("HOME", "ZDOTDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "BASH_COMPLETION_USER_DIR")
    homes = dict.fromkeys(names, str(folder.parent))
    return {**own, **homes, "PATH": path, "XDG_DATA_DIRS": str(share), "TERM": "dumb"}


def need(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")


@contextmanager
def bash(folder: Path, share: Path, setup: str) -> Iterator[Terminal]:
    """Bash, which has read `setup`."""
    need("bash")
    rc = folder.parent / "bashrc"
    rc.write_text(f"{setup}\n{BASH}")
    command = ["bash", "--noprofile", "--rcfile", str(rc), "-i"]
    with Terminal(command, folder, environment(folder, share)) as terminal:
        yield terminal


@contextmanager
def zsh(folder: Path, share: Path, setup: str) -> Iterator[Terminal]:
    """Zsh, which has read `setup`."""
    need("zsh")
    (folder.parent / ".zshrc").write_text(f"{setup}\n{ZSH}")
    with Terminal(["zsh", "-d", "-i"], folder, environment(folder, share)) as terminal:
        yield terminal


def check(terminal: Terminal, keys: str, case: Case) -> None:
    """The line after the keys is that with all completions in the place of its last word."""
    line = terminal.line_after(f"{case.stem}{case.part}{keys}")
    found = shlex.split(line)[len(shlex.split(case.stem)) :]
    expected = case.words or {case.part}
    assert {word.removesuffix("/") for word in found} == expected, (case, terminal.shown)
    assert not any(word in terminal.shown for word in WORDS_OF_ERRORS), terminal.shown


def fish(folder: Path, share: Path, case: Case, setup: str = "") -> set[str]:
    """What fish completes a case with."""
    need("fish")
    done = subprocess.run(
        ["fish", "-c", f"{setup}\ncomplete -C $argv[1]", case.stem + case.part],
        cwd=folder,
        env=environment(folder, share),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return {line.split("\t")[0].removesuffix("/") for line in done.stdout.splitlines()}


@pytest.mark.slow
def test_bash_completes_with_bash_completion(folder: Path, share: Path) -> None:
    if not BASH_COMPLETION.exists():
        pytest.skip("needs bash-completion")
    with bash(folder, share, f"source {BASH_COMPLETION}") as terminal:
        for case in CASES:
            check(terminal, ALL_OF_BASH, case)


@pytest.mark.slow
def test_zsh_completes_by_its_fpath(folder: Path, share: Path) -> None:
    setup = f"fpath=({share}/zsh/site-functions $fpath); autoload -Uz compinit; compinit -D -u"
    with zsh(folder, share, setup) as terminal:
        for case in CASES:
            check(terminal, ALL_OF_ZSH, case)


@pytest.mark.slow
def test_fish_completes_by_its_vendors_folder(folder: Path, share: Path) -> None:
    for case in CASES:
        assert fish(folder, share, case) == case.words, case


@pytest.mark.slow
def test_what_show_completion_prints_can_be_evaluated(folder: Path, tmp_path: Path) -> None:
    with bash(folder, tmp_path, 'eval "$(handclr --show-completion bash)"') as terminal:
        check(terminal, ALL_OF_BASH, CASES[0])
    setup = 'autoload -Uz compinit; compinit -D -u; eval "$(handclr --show-completion zsh)"'
    with zsh(folder, tmp_path, setup) as terminal:
        check(terminal, ALL_OF_ZSH, CASES[0])
    setup = "handclr --show-completion fish | source"
    assert fish(folder, tmp_path, CASES[0], setup) == CASES[0].words


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("predict ", {"*"}),
        ("finetune --encoder ", {"random", "imagenet", "handclr", "*.pt", "*.pth", "*/"}),
        ("evaluate --compare a.npz ", {"*.npz", "*/"}),
        ("import frei", {"freihand"}),
        ("import freihand ", {"*/"}),
        ("import dexycb --split s3-te", {"s3-test"}),
        ("mine --against p", {"*.npz", "*/"}),
        ("pretrain --device c", {"cpu", "cuda"}),
        ("pretrain --run ", {"*/"}),
        ("pretrain --epochs ", set()),
        ("pretrain --config - --precision b", {"bf16"}),
        ("demo there ", set()),
        ("--version m", {"mine"}),
    ],
)
def test_what_a_line_goes_on_with(
    line: str, offers: set[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_HANDCLR_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"handclr {line}")
    with pytest.raises(SystemExit):
        app(prog_name="handclr")
    answer = capfd.readouterr()
    lines = filter(None, answer.out.splitlines())
    assert {each.split("\t")[0] for each in lines} == offers and answer.err == ""


def commands(group: Any) -> Iterator[Command]:
    for each in group.commands.values():
        if isinstance(each, Command):
            yield each
        else:
            yield from commands(each)


def test_whatever_names_a_file_is_completed_by_files() -> None:
    lacking, count = [], 0
    for command in commands(typer.main.get_command(app)):
        marks = command.marks()
        for param in command.params:
            if any(isinstance(mark, Reads | Writes) for mark in marks.get(param.name, ())):
                offers = [offer.value for offer in param.shell_complete(None, "")]
                count += 1
                if not any(offer.startswith("*") for offer in offers):
                    lacking.append(f"{command.name} {param.name}")
    assert lacking == [] and count > 50
