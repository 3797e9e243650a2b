"""The errors a user can act on; the front door prints them as one line."""

from __future__ import annotations


class HandclrError(Exception):
    """A failure in one line: what is wrong, with which file, and what to do about it.

    `setting` is the field of the settings that is at fault, where there is one, and is printed in
    front of the line; `value` is the one of its values. The front door sets `where` to the option
    that the user gave, which is then printed instead.
    """

    exit_code = 1

    def __init__(self, *args: object, setting: str = "", value: str = "") -> None:
        super().__init__(*args)
        self.setting, self.value, self.where = setting, value, ""

    def __str__(self) -> str:
        where = self.where or f"{self.setting} {self.value}".rstrip()
        return f"{where}: {self.line()}" if where else self.line()

    def line(self) -> str:
        """The failure without the setting or option in front of it."""
        return super().__str__()


class UsageError(HandclrError):
    """A setting or an input that cannot be used, or two that contradict each other."""

    exit_code = 2


class NoCropsError(HandclrError):
    """An input without a single crop."""

    def __init__(self) -> None:
        super().__init__("the input holds no crops; did handclr extract find a hand?")


class DamagedError(HandclrError):
    """A tar that was damaged after it was written."""


class TruncatedError(DamagedError):
    """A tar stream that is empty or ends without its end-of-archive mark."""


class Preempted(HandclrError):
    """A trainer that saved its state on SIGTERM and can be run again to go on."""

    exit_code = 75


class Interrupted(HandclrError):
    """A trainer that saved its state on Ctrl-C."""

    exit_code = 130


# What libraries say where memory, or room for a thread or a library, cannot be had.
_NO_MEMORY = (
    *("allocate memory", "out of memory", "Insufficient memory", "bad_alloc", "not enough memory"),
    *("failed to map segment", "start new thread", "unable to mmap", "Unable to allocate"),
)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory runs out, in the words of Python, NumPy, OpenCV or torch.

    The errors that it came from are looked at too.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or any(word in str(seen) for word in _NO_MEMORY):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
