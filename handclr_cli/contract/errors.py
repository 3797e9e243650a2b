"""The errors a user can act on; the front door prints them as one line."""

from __future__ import annotations


class HandclrError(Exception):
    """A failure in one line: what is wrong, with which file, and what to do about it.

    `setting` is the field of the settings that is at fault, where there is one, and is printed in
    front of the line. The front door sets `where` to the option that the user gave, which is then
    printed instead.
    """

    exit_code = 1

    def __init__(self, *args: object, setting: str = "") -> None:
        super().__init__(*args)
        self.setting, self.where = setting, ""

    def __str__(self) -> str:
        where = self.where or self.setting
        return f"{where}: {self.line()}" if where else self.line()

    def line(self) -> str:
        """The failure without the setting or option in front of it."""
        return super().__str__()


class UsageError(HandclrError):
    """A setting or an input that cannot be used, or two that contradict each other."""

    exit_code = 2


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
