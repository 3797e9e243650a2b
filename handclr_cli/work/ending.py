"""How a process ends from outside: signals that wait for an import, streams that are closed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

# How long after an import is interrupted the signal is looked at again.
_AGAIN_S = 0.05
# So long a call of a library may take to come back, so that the signal is answered. Slurm kills
# after 30 s.
_CALL_S = 20.0
# A signal may be answered so long before it is told of here.
_SLACK_S = 1.0
_IMPORT = "<frozen importlib._bootstrap>"


def end_on_signals() -> None:
    """Let SIGTERM end this process with 143, and Ctrl-C by a KeyboardInterrupt, at any moment.

    An exception that is raised within an import is lost there, or comes out as another one: during
    an import the signal is kept until the import is over. Where a library does not come back from a
    call, the process ends without cleaning up, as by SIGKILL.
    """
    signal.signal(signal.SIGTERM, _after_imports(_terminate))
    # A shell lets its background jobs ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _after_imports(signal.default_int_handler))
    _ours.update({one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)})
    numbers, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    threading.Thread(target=_watch_calls, args=(numbers,), daemon=True).start()


def _watch_calls(pipe: int) -> None:
    """Look, a while after each signal, whether it was answered; it is told of here at once."""
    while numbers := os.read(pipe, 64):
        for number in set(numbers) & _ours.keys():
            since = time.monotonic() - _SLACK_S
            late = threading.Timer(_CALL_S, _end_within_call, (number, since))
            late.daemon = True
            late.start()


def answered(number: int) -> None:
    """Note that a signal is answered by other handlers than those here: a training has its own."""
    _heard[number] = time.monotonic()


def _end_within_call(number: int, since: float) -> None:
    is_ours = signal.getsignal(number) is _ours[number]
    if is_ours and not _ended and _heard.get(number, 0.0) < since:
        os.write(2, b"handclr: error: ended while a library did not come back from a call\n")
        os._exit(128 + number)


def exit_now(code: int) -> None:
    """End this process with its exit code where a signal has ended its work; else return.

    What was begun has been cleaned up by then. The interpreter would wait at its end for threads
    that a signal has kept from being told to end, or take their libraries from under them.
    """
    if _ended:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)


def code_of_signal() -> int | None:
    """The exit code of a signal that came during an import and was not answered yet."""
    return next((128 + number for number, again in _waiting.items() if again.is_alive()), None)


def let_go_of_signals() -> None:
    """Let a signal end this process at once, as nothing is left to clean up.

    One that was kept during an import is on its way again, and has been answered.
    """
    coming = code_of_signal() is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_IGN if coming else signal.SIG_DFL)


Handler = Callable[[int, FrameType | None], object]
# By their numbers, what sends the signals again that came during an import.
_waiting: dict[int, threading.Timer] = {}
# The numbers of those that were answered.
_ended: list[int] = []
# By their numbers, when others have answered.
_heard: dict[int, float] = {}
# By their numbers, the handlers that this file has installed.
_ours: dict[int, Handler | int | None] = {}


def _after_imports(handler: Handler) -> Handler:
    def handle(number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            again = _waiting[number] = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        _ended.append(number)
        handler(number, frame)

    return handle


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            return True
        frame = frame.f_back
    return False


def _terminate(number: int, frame: FrameType | None) -> None:
    # Once is enough: `timeout` sends it twice, and the second would end the cleaning up.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def hold_streams() -> None:
    """Keep the numbers 0, 1 and 2 from files, where standard streams are closed.

    A file that got the number of a closed one would receive what native libraries print. Closed
    standard error is replaced by nothing; closed standard input and output stay None, so that who
    needs them can say so.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open to the end
