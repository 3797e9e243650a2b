"""The command line in processes that need not import everything anew: forked from one that has.

Only for commands that are run to their end; what is to be killed, or measured from its start, is
started as users do.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

# Of handclr itself no more than what every command loads: the rooms are loaded as users load them.
PRELOADED = (
    *("numpy", "cv2", "torch", "torchvision", "numba", "scipy.spatial", "sklearn.decomposition"),
    *("mediapipe", "matplotlib.figure", "matplotlib.backends.backend_agg", "jinja2"),
    *("rich.progress", "pydantic.type_adapter", "handclr_cli.main"),
)
# Read by the interpreter or by a library as it is loaded.
EARLY = ("PYTHON", "OMP_", "LC_", "LANG", "LD_", "NUMBA_", "CUDA_", "MPL")


def run(
    arguments: Sequence[str],
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Any = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[bytes]:
    """Run `python -m handclr_cli` as subprocess.run would, its output captured."""
    env = dict(os.environ if env is None else env)
    if not hasattr(socket, "send_fds") or _early(env) != _early(os.environ):
        command = [sys.executable, "-m", "handclr_cli", *arguments]
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            env=env,
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
    pipes = [os.pipe() for _ in range(3)]
    theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
    ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
    server = _server()
    request = json.dumps(
        {"arguments": list(arguments), "env": env, "cwd": os.fspath(cwd or os.getcwd())}
    ).encode()
    socket.send_fds(server, [len(request).to_bytes(8, "big")], theirs)
    server.sendall(request)
    for end in theirs:
        os.close(end)
    pid = _number(server)
    with ThreadPoolExecutor(3) as pool:
        feeding = pool.submit(_feed, ours[0], stdin)
        reading = [pool.submit(_read, end) for end in ours[1:]]
        try:
            output, errors = (one.result(timeout) for one in reading)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            feeding.result()
            code = _number(server)
    return subprocess.CompletedProcess(list(arguments), code, output, errors)


@functools.cache
def _server() -> socket.socket:
    mine, theirs = socket.socketpair()
    command = [sys.executable, __file__, str(theirs.fileno())]
    root = str(Path(__file__).resolve().parent.parent)
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
    }
    subprocess.Popen(
        command,
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=env,
    )
    theirs.close()
    return mine


def _early(env: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in env.items()
        if name.startswith(EARLY) and name != "PYTHONPATH"
    }


def _feed(end: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(end, "wb") as file:
        file.write(data)


def _read(end: int) -> bytes:
    with open(end, "rb") as file:
        return file.read()


def _number(stream: socket.socket) -> int:
    return int.from_bytes(stream.recv(8, socket.MSG_WAITALL), "big", signed=True)


def preload() -> None:
    """Import what the commands will need."""
    for name in PRELOADED:
        with suppress(ImportError):  # the command that needs it will say so
            __import__(name)
    gc.freeze()


def listen(path: str) -> None:
    """Serve whoever connects to the socket, several at once; returns in the processes of requests,
    as `serve` does.
    """
    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    door = socket.socket(socket.AF_UNIX)
    door.bind(f"{path}.closed")
    door.listen(64)
    os.rename(f"{path}.closed", path)
    while True:
        requests, _ = door.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            door.close()
            serve(requests)
            return
        requests.close()


def serve(requests: socket.socket) -> None:
    """Fork a process for each request; returns in that process, to run the command, or the code
    after -c, and end as any other does.
    """
    preload()
    while True:
        size, ends, _, _ = socket.recv_fds(requests, 8, 3)
        if not size:
            os._exit(0)
        request = json.loads(requests.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
        pid = os.fork()
        if not pid:
            requests.close()
            become(request, ends)
            return
        for end in ends:
            os.close(end)
        requests.sendall(pid.to_bytes(8, "big", signed=True))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        requests.sendall(code.to_bytes(8, "big", signed=True))


def become(request: dict[str, Any], ends: Sequence[int]) -> None:
    """Take over the streams, the folder, the environment and the arguments of a request."""
    for number, end in enumerate(ends):
        os.dup2(end, number)
        os.close(end)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["handclr", *request["arguments"]]


def finish(code: int) -> NoReturn:
    """End as the interpreter does, but for taking apart all that is loaded, which takes longer than
    most commands.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120
    os._exit(code)


if __name__ == "__main__":
    if sys.argv[1].isdecimal():
        serve(socket.socket(fileno=int(sys.argv[1])))
    else:
        listen(sys.argv[1])
    try:
        if sys.argv[1:2] == ["-c"]:
            exec(sys.argv[2], {"__name__": "__main__"})
        else:
            runpy.run_module("handclr_cli", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        finish(end.code if isinstance(end.code, int) else int(end.code is not None))
    except BaseException:
        traceback.print_exc()
        finish(1)
    finish(0)
