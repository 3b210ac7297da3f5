"""What `iosim measure` does under a profiler, and with what one counted."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path

    from iosim.measure.cases import Case
    from iosim.measure.cuda import CudaMachine


def child() -> list[str]:
    """This program, profiling: the file of cases comes behind it."""
    return [sys.executable, "-m", "iosim", "measure", "--device", "cuda", "--profile"]


def profile_cases(which: str, machine: CudaMachine, cases: list[Case], state: str, limit: float) -> None:
    """One call per case, in the order given; whose turn it is, what was run and what failed is said."""
    import json
    from pathlib import Path
    from time import monotonic

    from iosim.errors import FileError
    from iosim.measure.profiler import DONE, FAILED, TURN

    start = monotonic()
    if which != "all":
        try:
            wanted = dict.fromkeys(json.loads(Path(which).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise FileError(f"no list of cases: {error}", which, "--profile all") from None
        named = {case.label: case for case in cases}
        cases = [named[label] for label in wanted if label in named]
    for case in cases:
        if monotonic() - start > limit:
            click.echo("the budget is spent", err=True)
            break
        click.echo(f"{TURN}{case.label}", err=True)
        try:
            machine.profile(case, state == "cold")
            click.echo(f"{DONE}{case.label}", err=True)
        except Exception as error:  # kernels, compilers and drivers raise whatever they like
            why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            click.echo(f"{FAILED}{case.label}: {why}", err=True)
        if not machine.release():
            break


def merge_counters(ncu: Path, path: Path, state: str) -> None:
    from iosim.errors import FileError
    from iosim.measure.counting import merge
    from iosim.measure.nsight import parse_nsight

    try:
        text = ncu.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", str(ncu)) from None
    filled = merge(path, parse_nsight(text, str(ncu)), state)
    click.echo(f"{filled} rows of {path} got their counters", err=True)
