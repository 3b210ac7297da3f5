"""iosim measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from iosim.cli.measure_profiling import child, merge_counters, profile_cases

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from iosim.measure.cases import Case
    from iosim.measure.counting import Counted
    from iosim.measure.measuring import Machine, Outcome

#: share of a budget that times may take where counters are asked for too
TIMES_SHARE = 0.6
#: the shortest budget that a probe of the processor, some ten seconds on a quiet machine, may take a part of
SHORTEST_PROBED_S = 30.0


@click.command("measure")
@click.option(
    "--device", "where", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="What to measure."
)
@click.option("--budget", default="8m", show_default=True, metavar="TIME", help="Stop starting cases after so long.")
@click.option("-o", "--output", metavar="FILE.csv", help="Written row by row; a second run goes on in it.")
@click.option("--counters", is_flag=True, help="On CUDA: bytes at main memory and L2 too, by Nsight Compute.")
@click.option(
    "--as",
    "name",
    default="",
    metavar="NAME|PATH",
    help="Device file of this machine, written in each row. Default: by its name; a CPU is probed.",
)
@click.option(
    "--only", default="", metavar="NAME[,NAME]", help="Experiments (E1, use, ...) or runners (sdpa-flash, ...)."
)
@click.option("--list", "listing", is_flag=True, help="Show the cases in the order in which they run, and stop.")
@click.option("--retry", is_flag=True, help="Measure again what failed before.")
@click.option("--profile", metavar="all|FILE", help="Under a profiler: one call per case in an NVTX range, no times.")
@click.option("--merge", metavar="NCU.csv", help="Counters taken by hand with --profile: put them into FILE.csv.")
@click.option(
    "--l2",
    "state",
    type=click.Choice(["cold", "warm"]),
    default="cold",
    show_default=True,
    help="With --profile and --merge: the last cache before each call, flushed by this program or left as it is.",
)
@click.option("--metrics", is_flag=True, help="Print what Nsight Compute should be asked for, and stop.")
def command(
    where: str, budget: str, output: str | None, counters: bool, name: str, only: str, listing: bool, retry: bool,
    profile: str | None, merge: str | None, state: str, metrics: bool,
) -> None:  # fmt: skip
    """Run real attention kernels here, on a CPU or a CUDA GPU, and write what they took.

    On a CPU tiled and unfused attention, compiled, and PyTorch's where it is installed; on CUDA what PyTorch and the
    FlashAttention packages have, FlexAttention, and a Triton kernel whose tile, direction and order are free. A run goes on
    where another with the same file stopped; docs/how-to/measure-on-a-gpu.md says what each case settles.

    \b
    Examples:
      iosim measure --device cpu --budget 2s -o cpu.csv
      iosim measure --device cuda --budget 8m -o gpu.csv
      iosim measure --device cuda --counters --budget 8m -o gpu.csv
      iosim measure --device cuda --only E1,E7 --list
    """
    from pathlib import Path

    from iosim.errors import FileError, UsageError
    from iosim.measure.measuring import seconds

    limit = seconds(budget)
    if metrics:
        from iosim.measure.profiler import metrics as names

        click.echo(",".join(names()))
        return
    if where == "cpu" and (counters or profile or merge):
        raise UsageError("counters are read on CUDA only", "--device cpu")
    if listing:
        click.echo(_listed(_cases(where, None, only)), nl=False)
        return
    if profile:
        _profile(profile, only, state, limit)
        return
    if output is None:
        raise UsageError("where to?", "-o", "-o FILE.csv")
    if Path(output).is_dir():
        raise FileError("is a directory", output, "name a file")
    if Path(output).suffix != ".csv":
        raise UsageError(f"writes CSV, not {Path(output).suffix or 'a file without a suffix'}", "-o", "-o FILE.csv")
    if merge:
        merge_counters(Path(merge), Path(output), state)
        return
    _measure(where, Path(output), name, only, retry, limit, counters)


def _measure(where: str, path: Path, name: str, only: str, retry: bool, limit: float, counters: bool) -> None:
    from time import monotonic

    from iosim.cli.progress import progress_line
    from iosim.errors import FileError
    from iosim.machine import load_device
    from iosim.measure.counting import count
    from iosim.measure.measuring import measure
    from iosim.measure.result_file import read_rows

    if not path.parent.is_dir():
        raise FileError("no such folder", str(path.parent), "make it first")
    if name:
        load_device(name)
    read_rows(path)  # a file of something else is refused before anything takes time
    start, machine = monotonic(), _machine(where)
    cases = _cases(where, machine, only)
    ready = monotonic()
    device = _named_from(path, name) or (
        _probed_here(path, limit) if where == "cpu" else _board_here(machine.facts()["board"])
    )
    times = limit * TIMES_SHARE if counters else limit
    _report(measure(machine, cases, path, device, times - (monotonic() - ready), progress_line(), retry), path)
    if counters:
        machine.release()
        _report_counted(
            count({case.key for case in cases}, path, child(), limit - (monotonic() - start), progress_line()), path
        )


def _machine(where: str) -> Machine:
    from iosim.measure.cpu import CpuMachine
    from iosim.measure.cuda import CudaMachine

    return CudaMachine.find() if where == "cuda" else CpuMachine()


def _cases(where: str, machine: Machine | None, only: str) -> list[Case]:
    """Cases for a machine; without one, those of an H100.

    Raises:
        UsageError: no case has such a name.
    """
    from iosim.errors import UsageError, did_you_mean
    from iosim.measure.cases import cpu_cases
    from iosim.measure.cpu import has_pytorch
    from iosim.measure.cuda import CudaMachine
    from iosim.measure.experiments import cuda_cases, selected

    board = machine.board() if isinstance(machine, CudaMachine) else None
    every = list(cuda_cases(board) if where == "cuda" else cpu_cases(has_pytorch()))
    words = [word for word in only.split(",") if word.strip()]
    known = {each for case in every for each in (case.experiment, case.kernel) if each}
    for word in words:
        if word.strip().lower() not in {each.lower() for each in known}:
            raise UsageError(f"no case is called {word.strip()!r}", "--only", did_you_mean(word.strip(), known))
    return selected(every, words)


def _probed_here(path: Path, limit: float) -> str:
    """The name of the device file beside the CSV: of an earlier run, else one core of this machine, probed now where there is time."""
    from iosim.cli.output import write_whole
    from iosim.cli.progress import end_line, progress_line
    from iosim.measure.probe_file import probed_text
    from iosim.measure.system import read_system

    beside = path.with_suffix(".device.toml")
    if beside.exists():
        return beside.name
    if limit < SHORTEST_PROBED_S:
        click.echo(
            f"no time to probe this machine: rows name {beside}, which a run of {SHORTEST_PROBED_S:.0f}s or more makes, or "
            f"iosim hardware new {beside} --probe --cores 1",
            err=True,
        )
        return beside.name
    text = probed_text(read_system(), 1, progress_line())
    end_line()
    write_whole(beside, text.encode())
    click.echo(f"probed this machine: {beside}", err=True)
    return beside.name


def _named_from(path: Path, name: str) -> str:
    """A device as rows name it: a catalogue name, or a file by its path from the rows' folder."""
    import os

    if not ("/" in name or name.endswith(".toml")) or os.path.isabs(name):
        return name
    return os.path.relpath(name, path.parent).replace(os.sep, "/")


def _board_here(board: str) -> str:
    """The catalogue's name of a GPU; its own, normalised, where it has none, which is said."""
    from iosim.catalog import key
    from iosim.measure.boards import device_of

    if known := device_of(board):
        return known
    own = key(board.partition(",")[0])
    click.echo(
        f"no device file for {board.partition(',')[0]}: rows name it {own}, and iosim validate needs {own}.toml "
        "(iosim hardware new), or name one here with --as",
        err=True,
    )
    return own


def _profile(which: str, only: str, state: str, limit: float) -> None:
    from iosim.measure.cuda import CudaMachine

    machine = CudaMachine.find()
    profile_cases(which, machine, _cases("cuda", machine, only), state, limit)


def _listed(cases: Sequence[Case]) -> str:
    from iosim.render.text import table

    rows = [
        [case.experiment or "-", case.kernel, str(case.batch), f"{case.heads}/{case.kv_heads}", str(case.head_dim),
         f"{case.seq_q} x {case.seq_kv}", case.mask, f"{case.tile_q}x{case.tile_kv}" if case.tile_q else "-", case.order,
         case.grid, case.pick]
        for case in cases
    ]  # fmt: skip
    names = ["experiment", "runner", "batch", "heads", "d", "queries x keys", "mask", "tile", "order", "grid", "pick"]
    return table(names, rows, left=2) + "\n"


def _report(outcome: Outcome, path: Path) -> None:
    """What was done; an early end has its own exit code.

    Raises:
        KeyboardInterrupt: it was interrupted. AbsentError: the GPU stopped answering.
    """
    from iosim.cli.progress import end_line
    from iosim.errors import AbsentError

    end_line()
    click.echo(
        f"{outcome.measured} cases measured, {outcome.failed} failed, {outcome.before} were in {path}, "
        f"{outcome.left} left for another run",
        err=True,
    )
    if outcome.stopped == "interrupted":
        raise KeyboardInterrupt
    if outcome.stopped == "lost":
        raise AbsentError("the GPU no longer answers", "--device cuda", "what was measured is kept; run again to go on")


def _report_counted(counted: Counted, path: Path) -> None:
    from iosim.cli.progress import end_line

    end_line()
    click.echo(f"{counted.counted} rows of {path} got their counters, {counted.left} left for another run", err=True)
    for name in counted.choice.refused:
        click.echo(f"this Nsight Compute has no counter for {name}", err=True)
    for name in counted.choice.unfit:
        click.echo(f"{name} was left out: it takes a second pass, which finds the cache warm", err=True)
