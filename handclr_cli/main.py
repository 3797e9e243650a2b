"""$ handclr: the front door.

Registers the commands and turns failures into one line and an exit code.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from . import choices, console
from .commands import (
    demo,
    evaluate,
    extract,
    finetune,
    import_,
    inspect,
    keypoints,
    mine,
    pca,
    predict,
    pretrain,
    synth,
)
from .completion import print_script
from .contract.errors import HandclrError, lacks_memory
from .contract.retries import Notices
from .contract.version import __version__
from .parsing import Group, PastParser, command
from .work.ending import (
    code_of_signal,
    end_on_signals,
    exit_now,
    hold_streams,
    let_go_of_signals,
)

# The exit codes of a filter that is ended from outside, as any Unix filter is: without a word.
SILENT = (141, 143)

app = typer.Typer(
    name="handclr",
    cls=Group,
    add_completion=False,
    help="From raw footage of hands to a pre-trained encoder and a 3D hand pose model.",
    epilog=(
        "extract | keypoints > hands.tar; pca hands.tar | mine > pairs.npz; "
        "pretrain, finetune, evaluate."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

command(app, "extract")(extract.extract)
command(app, "keypoints")(keypoints.keypoints)
command(app, "pca")(pca.pca)
command(app, "mine")(mine.mine)
command(app, "pretrain")(pretrain.pretrain)
command(app, "finetune")(finetune.finetune)
command(app, "evaluate")(evaluate.evaluate)
command(app, "predict")(predict.predict)
command(app, "inspect")(inspect.inspect)
command(app, "demo")(demo.demo)
app.add_typer(import_.app, name="import")
app.add_typer(synth.app, name="synth")


def _print_version(context: typer.Context, value: bool) -> None:
    if value and not context.resilient_parsing:
        typer.echo(f"handclr {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    show_completion: Annotated[
        choices.Shell | None,
        typer.Option(
            metavar="SHELL",
            callback=print_script,
            is_eager=True,
            help="Print the script that completes handclr in bash, zsh or fish, for eval.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Composable tools: footage to hand crops, pose embeddings, mined pairs, encoder, 3D hand pose,
    numbers.
    """


def main() -> NoReturn:
    """Run the command line; every failure is one line on standard error unless --debug."""
    hold_streams()
    end_on_signals()
    _spin_briefly()
    Notices.say = console.say
    try:
        _run()
    except SystemExit as ended:
        exit_now(ended.code if isinstance(ended.code, int) else 1)
        raise
    finally:
        let_go_of_signals()


def _spin_briefly() -> None:
    """Let OpenMP's threads wait for each other for microseconds, and then sleep.

    They spin for milliseconds by themselves, and so keep each other off the cores as soon as
    another program uses one; sleeping at once, they are slower where none does. GNU's library reads
    this when it is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _run() -> NoReturn:
    try:
        code = _parse_and_run()
        _flush_stdout()
    except HandclrError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        _fail("", 141)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", 1)
    except Exception as error:
        # The parser's: its class has no public name in every typer.
        if hasattr(error, "format_message"):
            _fail_usage(error)
        if lacks_memory(error):
            _fail("out of memory; free some, or use fewer workers or a smaller batch", 1)
        what = f"unexpected {type(error).__name__}: {error}"
        _fail(f"{what}; run again with --debug and report it", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _parse_and_run() -> object:
    """Run the command; returns the exit code, where it is none of an error."""
    try:
        return typer.main.get_command(app).main(prog_name="handclr", standalone_mode=False)
    except PastParser as past:
        error = past.__cause__
    # Outside of the handler: within, each of the two would come from the other.
    assert error is not None
    raise error


def _flush_stdout() -> None:
    """Write what is still buffered: at the interpreter's end nobody would hear of a full disk."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _fail_usage(error: Exception) -> NoReturn:
    """Print the parser's complaint as one line, or the help that it stands for."""
    # The parser is built on pydantic, whose words for a refused value are not for people.
    message = str(error.format_message()).replace("Value error, ", "")  # type: ignore[attr-defined]
    if message.startswith("Usage:"):
        print(message, file=console.stderr())
        sys.exit(2)
    context = getattr(error, "ctx", None)
    hint = f"; see {context.command_path} --help" if context else ""
    _fail(f"{message.rstrip('.')}{hint}", 2)


def _fail(message: str, code: int) -> NoReturn:
    code = code_of_signal() or code
    # Standard error may be the pipe that is closed, or go to a program that Ctrl-C ends too.
    with contextlib.suppress(OSError):
        if console.State.debug:
            for line in traceback.format_exc().splitlines():
                print(console.printable(line), file=console.stderr())
        if code not in SILENT and (code == 1 or not console.State.muted):
            line = f"handclr: error: {console.one_line(message)}"
            print(line, file=console.stderr(), flush=True)
    _drop_stdout()
    sys.exit(code)


def _drop_stdout() -> None:
    """Keep the interpreter from flushing half-written data, or failing to, on its way out."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # closed, or not a file
        return
