"""The exceptions a person can meet, and the exit code each one means.

Models raise these and never print; `iosim.cli` renders one line per fault.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    OK = 0
    CHECK_FAILED = 1
    USAGE = 2
    FILE = 3
    ABSENT = 4
    INTERNAL = 70  # sysexits.h, EX_SOFTWARE: a crash is no failed check
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, in one line: what, where, and what to do about it."""

    what: str
    """the fault, as a clause without a full stop"""
    where: str = ""
    """an option, a file with a dotted path, or a record number"""
    hint: str = ""
    """what to do, or the nearest name"""

    def __str__(self) -> str:
        return f"{self.what} ({self.where})" if self.where else self.what


class IosimError(Exception):
    """Base of every error that iosim raises on purpose. Carries one or more faults."""

    exit_code: ExitCode = ExitCode.USAGE

    def __init__(self, what: str = "", where: str = "", hint: str = "", *, faults: Iterable[Fault] = ()) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults) or (Fault(what, where, hint),)
        super().__init__("; ".join(str(fault) for fault in self.faults))


class UsageError(IosimError, ValueError):
    """A value that a person typed or passed is not possible (exit 2)."""

    exit_code = ExitCode.USAGE


class FileError(IosimError):
    """A file is missing, unreadable, broken or says impossible things (exit 3)."""

    exit_code = ExitCode.FILE


class AbsentError(IosimError):
    """A library, a GPU, a permission or a fact about a device is absent (exit 4)."""

    exit_code = ExitCode.ABSENT


class CheckError(IosimError):
    """A check that was asked for failed: a floor violated, a gate missed (exit 1)."""

    exit_code = ExitCode.CHECK_FAILED


def did_you_mean(name: str, known: Iterable[str], listed: Iterable[str] = (), command: str = "") -> str:
    """A hint that names the nearest of `known`, or lists them when there are few and none is near.

    Args:
        listed: what to list or count where that is less than `known`, which may hold other spellings.
        command: what shows them.

    >>> did_you_mean("flash22", ["flash1", "flash2", "unfused"])
    "did you mean 'flash2'?"
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    near.sort(key=lambda candidate: -difflib.SequenceMatcher(None, name, candidate).ratio())
    if near:
        return "did you mean " + " or ".join(repr(candidate) for candidate in near[:2]) + "?"
    names = sorted(set(listed)) or names
    if len(names) <= 40:
        return f"known: {', '.join(names)}"
    return f"{len(names)} names are known" + (f"; `{command}` shows them" if command else "")
