"""The errors a user can act on; the front door prints them as one line."""

from __future__ import annotations


class HandclrError(Exception):
    """A failure in one line: what is wrong, with which file, and what to do about it."""

    exit_code = 1


class UsageError(HandclrError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class DamagedError(HandclrError):
    """A tar that cannot be what its writer wrote."""


class TruncatedError(DamagedError):
    """A tar stream that is empty or ends without its end-of-archive mark."""


class Preempted(HandclrError):
    """A trainer that saved its state on SIGTERM and wants to be run again."""

    exit_code = 75


class Interrupted(HandclrError):
    """A trainer that saved its state on Ctrl-C."""

    exit_code = 130
