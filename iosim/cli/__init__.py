"""The command line: a lazy table of commands, and one place where errors become text and exit codes.

Start-up is a feature: nothing here imports a model, numpy or rich; a command's module is imported when it is
asked for, and `--help` of the group reads the table below (a test holds it against each command's own help).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NoReturn

import click

from iosim._version import __version__
from iosim.errors import ExitCode, Fault, FileError, IosimError, did_you_mean

#: command -> (module, help line)
COMMANDS = {
    "report": ("report", "The whole answer for one attention call: traffic, floors, gaps, time."),
    "simulate": ("simulate", "One kernel's schedule: exact counts and the bytes at each boundary."),
    "bounds": ("bounds", "Proven lower bounds on what any kernel must move, with class, conditions and source."),
    "curve": ("curve", "Traffic against cache capacity, every size in one pass, with the floors beside it."),
    "cache": ("cache", "Replay a recorded trace through a cache: exact misses and write-backs."),
    "speedup": (
        "speedup",
        "How much faster a mask can make attention: upper bounds at element, tile and machine level.",
    ),
    "passes": ("passes", "How often an Einsum cascade must visit each rank, why, and what that costs."),
    "predict": ("predict", "Expected time, time floor and main-memory bytes of many calls, one per row of a CSV."),
    "validate": (
        "validate",
        "Predictions beside measured kernels: error statistics, the fitted pair on the same rows, floors beaten.",
    ),
    "calibrate": ("calibrate", "Refit the time model's constants from measured tables, each with its interval."),
    "measure": ("measure", "Run real attention kernels here, on a CPU or a CUDA GPU, and write what they took."),
    "roofline": ("roofline", "Intensity of each kernel at each boundary against the device's ceilings."),
    "hardware": ("hardware", "Devices: list, show, start a new one, check the numbers."),
    "models": ("models", "Networks, kernels and workloads: list, show, import a config.json."),
    "explain": ("explain", "What a number means: statement, formula with the numbers put in, conditions, source."),
    "doctor": ("doctor", "What this installation can do, and what is missing."),
    "completion": ("completion", "A completion script for bash, zsh or fish."),
}

#: parameter of the library -> the option that gives it
OPTIONS = {
    "policy": "--policy",
    "ways": "--policy",
    "capacity": "--capacity",
    "format": "--trace-format",
    "line_bytes": "--line-bytes",
}

#: click before 8.2, which a GPU's image may hold, leaves with Exit instead
NOTHING_ASKED: type[click.ClickException] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())


class LazyGroup(click.Group):
    """Commands are imported when named; the group's help comes from the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        import importlib

        module = importlib.import_module(f"iosim.cli.{COMMANDS[cmd_name][0]}_command")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(f"no command {name!r}\n{did_you_mean(name, COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=True,
)
@click.version_option(__version__, "--version", prog_name="iosim")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails (or set IOSIM_DEBUG=1).")
def group(debug: bool) -> None:
    """How far is this attention kernel from the best that any kernel could do on this hardware, and why?

    \b
    Start here:
      iosim report
      iosim report --network deepseek-v3 --phase decode --seq-kv 32768 --batch 16
      iosim bounds --heads 32 --head-dim 128 --seq 8192 --memory-elements 65536
      iosim explain gap
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with the documented exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or os.environ.get("IOSIM_DEBUG", "") not in ("", "0")
    if "--debug" in given and "_IOSIM_COMPLETE" not in os.environ:
        given.remove("--debug")
    sys.exit(run(given, debug))


def run(arguments: list[str], debug: bool = False) -> int:
    """Run one command line; errors become lines on stderr and a code, with a traceback before them in `debug`."""
    try:
        if "_IOSIM_COMPLETE" in os.environ:
            group.main(arguments, prog_name="iosim")
        with group.make_context("iosim", arguments) as context:  # main() would write a bare line at Ctrl-C
            group.invoke(context)
        with writing():
            sys.stdout.flush()
        return ExitCode.OK
    except BrokenPipeError:
        silence()  # the reader has what it wanted
        return ExitCode.OK
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except NOTHING_ASKED as nothing_asked:
        click.echo(nothing_asked.format_message())
        return ExitCode.OK
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            traceback.print_exc()
        faults, code = _told(error)
        complain(faults)
        return code


def _told(error: BaseException) -> tuple[Sequence[Fault], int]:
    """What a person is told of an error, and the exit code that it means."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return [Fault("interrupted")], ExitCode.INTERRUPTED
    if isinstance(error, click.ClickException):
        return [_usage_fault(error)], ExitCode.USAGE
    if isinstance(error, IosimError):
        return [replace(fault, where=OPTIONS.get(fault.where, fault.where)) for fault in error.faults], error.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        return [Fault(f"the system says: {error.strerror or error}", str(error.filename))], ExitCode.FILE
    told = " ".join(f"{type(error).__name__}: {error}".splitlines()[:1])
    return [Fault(f"internal error: {told}", hint="a mistake of iosim's; run again with --debug and report it")], (
        ExitCode.INTERNAL
    )


@contextmanager
def writing(name: str = "") -> Iterator[None]:
    """What the system refuses inside is the fault of the output: a full disk, a closed device.

    Args:
        name: the file; empty: stdout.
    Raises:
        FileError: says so.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if not name:
            silence()
        raise FileError(f"output cannot be written: {error.strerror or error}", name) from None


def silence() -> None:
    """Keep the interpreter's own flush of stdout from complaining again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(faults: Sequence[Fault]) -> None:
    """Each fault as `error: WHAT (WHERE)` with its `hint:` on stderr."""
    for fault in faults:
        click.echo(f"error: {fault}", err=True)
        if fault.hint:
            click.echo(f"hint: {fault.hint}", err=True)


def _usage_fault(error: click.ClickException) -> Fault:
    """Click's message as one fault: its suggestions become the hint."""
    what, _, rest = error.format_message().partition("\n")
    hint = rest
    for marker in (" Did you mean one of ", " (Did you mean one of: ", " Did you mean ", " (Possible options: "):
        if marker in what:
            what, _, near = what.partition(marker)
            hint = f"did you mean {near.rstrip(')?')}?"
    context = getattr(error, "ctx", None)
    if not hint and context is not None:
        hint = f"`{context.command_path} --help` shows the options and examples"
    return Fault(what.rstrip("."), hint=hint)
