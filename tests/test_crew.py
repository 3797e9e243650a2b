"""The crew: the same answers in the same order whatever becomes of the processes that give them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from handclr_cli import console
from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.retries import Notices
from handclr_cli.work import pulse, watch
from handclr_cli.work.crew import AHEAD, Crew, WorkerLostError, in_order

PROCESSES = pytest.mark.parametrize("workers", [0, 1, pytest.param(3, marks=pytest.mark.slow)])


def count_up(number: int) -> Iterator[tuple[int, int]]:
    """As many results as the number says; every third item takes its time."""
    for step in range(number):
        if number % 3 == 0:
            time.sleep(0.002)
        yield number, step


def ids(number: int) -> Iterator[int]:
    yield os.getpid()


def heard(number: int) -> Iterator[int]:
    """As where a server is asked again."""
    Notices.say(f"trying \x1b again ({number} of 3)")
    yield number


def slept() -> None:
    time.sleep(600)


def stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def blocked() -> None:
    """Waits in the system for a pipe that nobody writes."""
    folder = tempfile.mkdtemp()
    os.mkfifo(f"{folder}/film.mp4")
    open(f"{folder}/film.mp4", "rb")  # noqa: SIM115 - never opened


class Hanging:
    """Hangs in the middle of one item; the last takes long, and says that it goes on."""

    def __init__(self, item: int, how: Callable[[], object]) -> None:
        self.item, self.how = item, how

    def __call__(self, number: int) -> Iterator[int]:
        yield number
        if number == self.item:
            self.how()
        for _ in range(20 * number):
            time.sleep(0.1)
            pulse.beat()
        yield number


def large(number: int) -> Iterator[bytes]:
    """More than a pipe holds."""
    for _ in range(3):
        yield bytes(1 << 20)


class Fatal:
    """Kills its process in the middle of certain items, and always, or only the first time."""

    def __init__(self, folder: Path, items: tuple[int, ...], always: bool) -> None:
        self.folder, self.items, self.always = folder, items, always

    def __call__(self, number: int) -> Iterator[tuple[int, int]]:
        for step in range(4):
            if step == 2 and number in self.items:
                mark = self.folder / f"{number}"
                if self.always or not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            yield number, step


def failing(number: int) -> Iterator[int]:
    yield number
    if number == 3:
        raise ValueError("three")
    yield number


def printing(number: int) -> Iterator[bytes]:
    os.write(1, b"native noise")
    yield os.read(0, number)


class Stillborn:
    """Ends its process before the first item, or at each item."""

    def __init__(self, at_items: bool) -> None:
        self.at_items = at_items

    def prepare(self) -> None:
        if not self.at_items:
            os._exit(7)

    def __call__(self, number: int) -> Iterator[int]:
        if number < 5:
            os._exit(7)
        yield number


class Noted:
    """Writes down which items are begun, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, number: int) -> Iterator[int]:
        with self.path.open("a") as file:
            print(number, file=file)
        yield from range(number)


class CutOff:
    """Kills its process in the middle of a message, the first time."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self, number: int) -> Iterator[bytes]:
        yield bytes(100)
        if not self.mark.exists():
            self.mark.touch()
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
        yield bytes(4 << 20)


class Meeting:
    """Is ready as soon as two processes have begun, or after a while; answers how many had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        (self.folder / f"{os.getpid()}").touch()
        until = time.monotonic() + 10
        while len(list(self.folder.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        self.met = len(list(self.folder.iterdir()))

    def __call__(self, item: bytes) -> Iterator[int]:
        yield self.met


@PROCESSES
@pytest.mark.slow
def test_answers_come_in_order_however_many_work(workers: int) -> None:
    numbers = [5, 0, 9, 1, 40, 3, 3, 2]
    with Crew(count_up, workers) as crew:
        answered = [(item, list(results)) for item, results in crew.answers(numbers)]
        assert answered == [
            (number, [(number, step) for step in range(number)]) for number in numbers
        ]
        assert [list(results) for _, results in crew.answers([2])] == [[(2, 0), (2, 1)]]


@pytest.mark.slow
def test_the_longest_of_the_last_items_are_begun_first(tmp_path: Path) -> None:
    numbers = [3, 200, 5, 40, 4, 40, 9]
    with Crew(Noted(tmp_path / "begun"), 1) as crew:
        found = [(item, list(results)) for item, results in crew.answers(iter(numbers), numbers)]
    assert found == [(number, list(range(number))) for number in numbers]
    begun = [int(line) for line in (tmp_path / "begun").read_text().split()]
    assert begun == [3, 200, 40, 40, 9, 5, 4]


@pytest.mark.slow
def test_a_worker_that_dies_costs_nothing(tmp_path: Path) -> None:
    with Crew(Fatal(tmp_path, (1, 4), always=False), 2) as crew:
        answered = [(item, list(results)) for item, results in crew.answers(range(6))]
    assert answered == [(number, [(number, step) for step in range(4)]) for number in range(6)]
    assert {path.name for path in tmp_path.iterdir()} == {"1", "4"}


@pytest.mark.slow
@pytest.mark.slow
def test_a_worker_that_dies_within_a_message_costs_nothing(tmp_path: Path) -> None:
    with Crew(CutOff(tmp_path / "mark"), 1) as crew:
        for _, results in crew.answers([0, 1]):
            assert len(next(results)) == 100
            time.sleep(0.6)  # the next one fills the pipe meanwhile
            assert [len(result) for result in results] == [4 << 20]


@pytest.mark.slow
def test_large_items_keep_no_worker_from_beginning(tmp_path: Path) -> None:
    item = bytes(1 << 20)  # more than a pipe holds
    with Crew(Meeting(tmp_path), 2) as crew:
        assert [list(results) for _, results in crew.answers([item, item])] == [[2], [2]]


def test_an_item_that_kills_two_is_given_up_and_the_others_are_answered(tmp_path: Path) -> None:
    answered = {}
    with Crew(Fatal(tmp_path, (1, 4), always=True), 2) as crew:
        for item, results in crew.answers(range(6)):
            answered[item] = []
            try:
                for result in results:
                    answered[item].append(result)
            except WorkerLostError as error:
                assert "ended by signal 9, twice" in str(error)
                answered[item].append("lost")
    assert answered[1] == [(1, 0), (1, 1), "lost"] and answered[4] == [(4, 0), (4, 1), "lost"]
    assert all(answered[item] == [(item, step) for step in range(4)] for item in (0, 2, 3, 5))


@pytest.mark.slow
@pytest.mark.parametrize("how", [stopped, blocked])
def test_a_worker_that_hangs_is_ended_and_the_others_are_waited_for(
    how: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "HANG_S", 1.0)
    monkeypatch.setattr(watch, "STALL_S", 30.0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    answered = {}
    with Crew(Hanging(2, how), 2) as crew:
        for item, results in crew.answers(range(4)):
            answered[item] = []
            try:
                for result in results:
                    answered[item].append(result)
            except WorkerLostError as error:
                assert "a worker process hung for" in str(error) and "twice" in str(error)
                answered[item].append("lost")
    # 3 takes longer than the limit, and the one that is lost had answered before it hung.
    assert answered == {0: [0, 0], 1: [1, 1], 2: [2, "lost"], 3: [3, 3]}


@pytest.mark.slow
def test_where_all_hang_they_are_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HANG_S", 0.2)
    with Crew(Hanging(0, slept), 1) as crew:
        answers = crew.answers([0])
        _, results = next(answers)
        assert next(results) == 0
        began = time.monotonic()
        monkeypatch.setattr(watch, "STALL_S", 1.2)
        with pytest.raises(WorkerLostError, match="hung for"):
            list(results)
    assert time.monotonic() - began > 2 * 1.2


@pytest.mark.slow
def test_what_waits_until_its_results_are_taken_does_not_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "HANG_S", 0.2)
    monkeypatch.setattr(watch, "STALL_S", 30.0)
    with Crew(large, 2) as crew:
        for _, results in crew.answers(range(3)):
            for result in results:
                time.sleep(0.3)
                assert len(result) == 1 << 20


@pytest.mark.slow
def test_what_is_stopped_together_with_its_crew_does_not_hang(tmp_path: Path) -> None:
    script = (
        "import time\n"
        "from handclr_cli.work import pulse, watch\n"
        "from handclr_cli.work.crew import Crew\n"
        "def work(n):\n"
        "    for step in range(20):\n        time.sleep(0.05)\n        pulse.beat()\n"
        "    yield n\n"
        "if __name__ == '__main__':\n"
        "    with Crew(work, 2) as crew:\n"
        "        print(*next(crew.answers([7]))[1], flush=True)\n"
        "        watch.HANG_S = watch.STALL_S = 1.0\n"
        "        print([list(found) for _, found in crew.answers(range(4))])\n"
    )
    (tmp_path / "hire.py").write_text(script)
    hiring = subprocess.Popen(
        [sys.executable, "hire.py"], cwd=tmp_path, stdout=subprocess.PIPE, process_group=0
    )
    assert hiring.stdout is not None and hiring.stdout.readline() == b"7\n"
    for _ in range(2):
        time.sleep(0.3)
        os.killpg(hiring.pid, signal.SIGSTOP)
        time.sleep(1.5)
        os.killpg(hiring.pid, signal.SIGCONT)
    assert hiring.communicate(timeout=60)[0] == b"[[0], [1], [2], [3]]\n"


@pytest.mark.slow
def test_processes_that_cannot_even_start_end_the_work() -> None:
    with (
        Crew(Stillborn(at_items=False), 2) as crew,
        pytest.raises(HandclrError, match="before they do anything"),
    ):
        for _, results in crew.answers(range(100)):
            list(results)


@pytest.mark.slow
def test_items_in_a_row_that_end_every_process_do_not_end_the_work() -> None:
    answered = []
    with Crew(Stillborn(at_items=True), 2) as crew:
        for number, results in crew.answers(range(6)):
            if number < 5:
                with pytest.raises(WorkerLostError, match="with exit code 7, twice"):
                    list(results)
            else:
                answered += list(results)
    assert answered == [5]


@pytest.mark.slow
def test_a_filter_outlives_a_worker_that_ended_while_it_was_idle() -> None:
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with Crew(ids, 1) as crew:
            pids = []
            for _, results in crew.answers(range(3)):
                pids += list(results)
                if len(pids) == 1:
                    os.kill(pids[0], signal.SIGKILL)
                    os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOWAIT)
        assert len(pids) == 3 and pids[0] != pids[1] == pids[2]
        assert signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGPIPE, before)


@PROCESSES
@pytest.mark.slow
def test_what_work_raises_is_raised_in_its_place(workers: int) -> None:
    taken = []
    with Crew(failing, workers) as crew, pytest.raises(ValueError, match="three"):
        for _, results in crew.answers(range(6)):
            for result in results:
                taken.append(result)
    assert taken == [0, 0, 1, 1, 2, 2, 3]


@pytest.mark.slow
def test_processes_are_replaced_after_so_many_results() -> None:
    with Crew(ids, 1, recycle=3) as crew:
        pids = [pid for _, results in crew.answers(range(9)) for pid in results]
    assert len(set(pids)) > 1 and all(pids.count(pid) <= 4 for pid in pids)


@pytest.mark.slow
def test_no_more_is_done_ahead_than_can_be_kept() -> None:
    asked = []

    def items() -> Iterator[int]:
        for number in range(10**9):
            asked.append(number)
            yield 30

    with Crew(count_up, 2) as crew:
        for position, (_, results) in enumerate(crew.answers(items())):
            time.sleep(0.01)
            assert len(list(results)) == 30
            if position == 20:
                break
    assert len(asked) <= 20 + 2 * AHEAD // 30 + 6


@pytest.mark.slow
@PROCESSES
def test_results_that_are_not_taken_cost_no_other_item(workers: int) -> None:
    numbers = [3, 40, 2, 30, 1, 5]
    with Crew(count_up, workers) as crew:
        assert [next(results) for _, results in crew.answers(numbers)] == [
            (number, 0) for number in numbers
        ]
        for item, results in crew.answers(numbers):  # noqa: B007 - left in the middle, with all at work
            next(results)
            break
        assert [list(results) for _, results in crew.answers([2, 1])] == [
            [(2, 0), (2, 1)],
            [(1, 0)],
        ]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_quick_work_loses_nothing(workers: int) -> None:
    taken = 0
    with Crew(count_up, workers) as crew:
        for item, results in crew.answers([8] * 2000):
            taken += sum(1 for _ in zip(range(item), results, strict=False))
    assert taken == 16_000


@pytest.mark.slow
def test_items_in_batches() -> None:
    assert list(in_order(abs, range(-50, 0), 2, batch=8)) == list(range(50, 0, -1))


@pytest.mark.slow
def test_workers_end_with_the_one_that_hired_them(tmp_path: Path) -> None:
    script = (
        "import os, time\n"
        "from handclr_cli.work.crew import Crew\n"
        "def work(n):\n    while True:\n        yield os.getpid()\n        time.sleep(0.02)\n"
        "if __name__ == '__main__':\n"
        "    with Crew(work, 2) as crew:\n"
        "        for _, pids in crew.answers(range(9)):\n"
        "            print(next(pids), flush=True)\n            time.sleep(60)\n"
    )
    (tmp_path / "hire.py").write_text(script)
    hiring = subprocess.Popen([sys.executable, "hire.py"], cwd=tmp_path, stdout=subprocess.PIPE)
    assert hiring.stdout is not None
    worker = int(hiring.stdout.readline())
    hiring.kill()
    hiring.wait()
    deadline = time.monotonic() + 30
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(worker)


@pytest.mark.slow
def test_what_a_worker_prints_is_not_among_the_data(capfd: pytest.CaptureFixture[str]) -> None:
    with Crew(printing, 1) as crew:
        assert [list(results) for _, results in crew.answers([3])] == [[b""]]
    assert capfd.readouterr().out == ""


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("quiet", "said"), [(True, ""), (False, "trying \\x1b again (1 of 3)\n")], ids=["-q", "aloud"]
)
def test_a_process_is_as_quiet_as_the_command(
    quiet: bool, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console.State, "quiet", quiet)
    monkeypatch.setattr(console.State, "muted", False)
    with Crew(heard, workers=1) as crew:
        ((_, answers),) = ((item, list(results)) for item, results in crew.answers([1]))
    assert answers == [1] and capfd.readouterr().err == said
