"""Signals and closed streams: how a command ends from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Handclr, lines, pack
from shard_helpers import cli_env

from handclr_cli.contract.errors import lacks_memory

# As a shell has it: a process that the signal itself ended, before handclr was loaded, is 143 too.
TERMINATED = (143, -signal.SIGTERM)
INTERRUPTED = (130, -signal.SIGINT)


def start(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "handclr_cli", *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=cli_env(), **pipes)  # type: ignore[call-overload]


@pytest.mark.parametrize("moment_s", [0.6])
@pytest.mark.slow
def test_sigterm_while_libraries_are_loaded(moment_s: float, tmp_path: Path) -> None:
    with start("finetune", "-", "--run", str(tmp_path / "run")) as process:
        time.sleep(moment_s)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(60) in TERMINATED


IMPORTING = """
import os, signal, sys, time
from pathlib import Path
from handclr_cli.work.ending import end_on_signals
end_on_signals()
sys.path.insert(0, sys.argv[1])
Path(sys.argv[1], "slow.py").write_text('''
import os, signal, time
class Loud:
    def __del__(self):
        time.sleep(0.1)
os.kill(os.getpid(), signal.{name})
Loud()
try:
    time.sleep(0.2)
except BaseException:
    raise ImportError("lost")
''')
import slow
print("imported", flush=True)
time.sleep(30)
"""


@pytest.mark.parametrize(("name", "ends"), [("SIGTERM", TERMINATED), ("SIGINT", INTERRUPTED)])
def test_a_signal_during_an_import_waits_for_its_end(
    name: str, ends: tuple[int, int], tmp_path: Path
) -> None:
    code = IMPORTING.replace("{name}", name)
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=cli_env(), capture_output=True, timeout=20
    )
    assert done.stdout == b"imported\n"
    assert done.returncode in ends
    assert b"lost" not in done.stderr


def test_a_kept_signal_that_another_handler_answers_is_answered(tmp_path: Path) -> None:
    """As a trainer's, which saves and ends with 75."""
    code = IMPORTING.replace("{name}", "SIGTERM").replace(
        "import slow\n", "import slow\nsignal.signal(signal.SIGTERM, lambda *event: None)\n"
    )
    code = code.replace("time.sleep(30)", "time.sleep(0.5)\nfrom handclr_cli.work import ending\n")
    code += "sys.exit(75 if ending.code_of_signal() is None else 1)"
    command = [sys.executable, "-c", code, tmp_path]
    assert subprocess.run(command, env=cli_env(), timeout=20, check=False).returncode == 75


def closed(number: int, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a command line without one of its standard streams, the others captured."""
    program = [sys.executable, "-m", "handclr_cli", *map(str, words)]
    shell = ["sh", "-c", f'exec "$@" {number}>&-', "sh", *program]
    return subprocess.run(
        shell, env=cli_env(), cwd=cwd, capture_output=True, timeout=60, check=False, stdin=-3
    )


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "x.tar", "--predictions", "x.npz"),
        ("inspect", "x.tar"),
        ("pca", "x.tar"),
        ("extract", "x.mp4"),
        ("synth", "labelled", "--count", "1"),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_a_closed_standard_output_is_an_error_where_data_goes_there(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    for name in ("x.tar", "x.npz", "x.mp4"):
        (tmp_path / name).write_bytes(b"x")
    done = closed(1, *words, cwd=tmp_path)
    (line,) = lines(done.stderr)
    assert line == "handclr: error: standard output is closed; send it to a file or a pipe"
    assert done.returncode == 1


@pytest.mark.slow
def test_closed_streams_that_a_command_does_not_need(tmp_path: Path) -> None:
    shard = tmp_path / "x.tar"
    shard.write_bytes(pack({"a": {"txt": b"words"}}))
    whole = closed(0, "inspect", shard, cwd=tmp_path)
    assert whole.returncode == 0 and b"samples    1" in whole.stdout
    silent = closed(2, "inspect", shard, cwd=tmp_path)
    assert silent.returncode == 0 and silent.stdout == whole.stdout
    output = "out.tar"
    made = closed(
        1, "synth", "labelled", "--count", "1", "--workers", "1", "-o", output, cwd=tmp_path
    )
    assert made.returncode == 0 and (tmp_path / output).stat().st_size
    nothing = closed(0, "inspect", "-", cwd=tmp_path)
    assert nothing.returncode == 1
    assert lines(nothing.stderr)[0].startswith("handclr: error: standard input is closed")


def test_a_file_never_gets_the_number_of_a_closed_stream() -> None:
    code = "from handclr_cli.work.ending import hold_streams; hold_streams(); import os\n"
    code += "raise SystemExit(os.open('/dev/null', 0))"
    shell = ["sh", "-c", 'exec "$@" 0>&- 1>&- 2>&-', "sh", sys.executable, "-c", code]
    assert subprocess.run(shell, env=cli_env(), timeout=20, check=False).returncode > 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_behind_standard_output_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(pack({"a": {"txt": b"words"}}))
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "handclr_cli", "inspect", "x.tar"],
            **{"env": cli_env(), "cwd": tmp_path, "stdout": full, "stderr": subprocess.PIPE},
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert lines(done.stderr) == ["handclr: error: No space left on device"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_low_memory_is_told_apart(error: Exception) -> None:
    assert lacks_memory(error)
    assert not lacks_memory(ValueError("memory"))
    try:
        raise ValueError("x") from error
    except ValueError as outer:
        assert lacks_memory(outer)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("predict", "-", "--model", "gone.pt"),
        ("evaluate", "-", "--model", "gone.pt"),
        ("evaluate", "-", "--predictions", "gone.npz"),
        ("mine", "-", "--against", "gone.npz"),
        ("mine", "-", "--truth", "gone.tar"),
        ("pca", "-", "--basis", "gone.npz"),
        ("keypoints", "-", "--landmarker", "gone.task"),
        ("finetune", "-", "--encoder", "gone.pt", "--arch", "resnet18"),
        ("finetune", "-", "--validation", "gone.tar"),
        ("pretrain", "-", "--method", "simclr", "--init", "gone.pt"),
        ("pretrain", "-", "--pairs", "gone.npz"),
        ("pretrain", "-", "--method", "simclr", "--probe", "gone.tar"),
        ("inspect", "-", "gone.tar"),
        ("extract", "--detections", "-", "gone.mp4"),
    ],
    ids=" ".join,
)
def test_a_missing_file_is_found_before_standard_input_is_read(
    words: tuple[str, ...], tmp_path: Path, handclr: Handclr
) -> None:
    started = time.monotonic()
    done = handclr(*words, stdin=b"", cwd=tmp_path)
    (line,) = lines(done.stderr)
    assert "gone." in line and "standard input" not in line and done.returncode in (1, 2)
    assert time.monotonic() - started < 60


TOY = """
import signal, sys
import typer
from handclr_cli import main
from handclr_cli.parsing import Group, command

main.app = typer.Typer(cls=Group)
main.app.command("beside")(lambda: None)
inner = typer.Typer(cls=Group)
inner.command("beside")(lambda: None)
main.app.add_typer(inner, name="inner")

@command(inner, "toy")
def toy() -> None:
    typer.echo("begun")
    {what}

sys.argv = ["handclr", "inner", "toy"]
main.main()
"""
UNEXPECTED = b"handclr: error: unexpected EOFError: cut; run again with --debug and report it\n"


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("signal.raise_signal(signal.SIGINT)", 130, b"handclr: error: interrupted\n"),
        ("raise BrokenPipeError(32, 'Broken pipe')", 141, b""),
        ("raise EOFError('cut')", 1, UNEXPECTED),
    ],
    ids=["Ctrl-C", "a closed pipe", "an end of file"],
)
def test_what_the_parser_would_answer_is_answered_as_promised(
    what: str, code: int, said: bytes
) -> None:
    script = TOY.replace("{what}", what)
    done = subprocess.run([sys.executable, "-c", script], env=cli_env(), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"begun\n", said)


@pytest.mark.parametrize(
    "words", [["--help"], ["pca", "--help"], ["--version"], ["--show-completion", "bash"]], ids=str
)
def test_a_word_into_a_closed_pipe_is_its_end(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed_pipe:
        command = [sys.executable, "-m", "handclr_cli", *words]
        done = subprocess.run(command, env=cli_env(), stdout=closed_pipe, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_error_that_nobody_can_read_keeps_its_exit_code() -> None:
    """As of `2>&1 | tee`, which Ctrl-C ends too."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed_pipe:
        script = TOY.replace("{what}", "signal.raise_signal(signal.SIGINT)")
        done = subprocess.run([sys.executable, "-c", script], env=cli_env(), stderr=closed_pipe)
    assert done.returncode == 130


WITHIN_A_CALL = """
import ctypes, math, signal, sys
from handclr_cli.work import ending
ending._CALL_S = 0.3
ending.end_on_signals()
if sys.argv[1:] == ["others"]:
    signal.signal(signal.SIGTERM, lambda number, frame: None)
if sys.argv[1:] == ["a training"]:
    from handclr_cli.learning import stopping
    with stopping.Stop(math.inf):
        signal.raise_signal(signal.SIGTERM)  # it saves, and ends what else it has begun
lock, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
library.pthread_mutex_lock(lock)
print("calling", flush=True)
library.pthread_mutex_lock(lock)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="locks of other systems are larger")
@pytest.mark.parametrize("answers", ["", "others", "a training"])
def test_a_library_that_does_not_come_back_keeps_no_command_from_ending(answers: str) -> None:
    command = [sys.executable, "-c", WITHIN_A_CALL, *[answers] * bool(answers)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=cli_env(), **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"calling\n"
        time.sleep(0.5)
        if answers != "a training":
            process.terminate()
        if answers:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.0)
            process.kill()
            return
        assert process.wait(20) == 143
        assert process.stderr.read().count(b"\n") == 1
