"""Public names resolve lazily, and no submodule hides one."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys

import iosim


def submodules() -> list[str]:
    return [m.name for m in pkgutil.walk_packages(iosim.__path__, "iosim.") if not m.name.endswith("__main__")]


def test_no_submodule_shadows_a_public_name() -> None:
    """Import every submodule, then use each public name twice."""
    for name in submodules():
        importlib.import_module(name)
    for name in iosim.__all__:
        first, second = getattr(iosim, name), getattr(iosim, name)
        assert first is second
        assert not isinstance(first, type(iosim)), f"iosim.{name} is a module"
    floors = iosim.bounds(iosim.problem(heads=1, head_dim=64, seq=128), memory_elements=1024)
    assert floors == iosim.bounds(iosim.problem(heads=1, head_dim=64, seq=128), memory_elements=1024)


def loaded_by(*arguments: str) -> set[str]:
    """Modules that a command line leaves loaded, down to the second level."""
    program = (
        "import sys, json, io, contextlib\n"
        "from iosim.cli import run\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        f"    run({list(arguments)!r})\n"
        "print(json.dumps(sorted({'.'.join(name.split('.')[:n]) for name in sys.modules for n in (1, 2)})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


HEAVY = {"numpy", "scipy", "numba", "networkx", "matplotlib", "rich", "pandas"}


def test_help_version_and_usage_errors_load_nothing_heavy() -> None:
    for arguments in (["--help"], ["--version"], ["reprot"], ["report", "--seqq", "3"], ["report", "--help"]):
        assert not HEAVY & loaded_by(*arguments), arguments


def test_closed_form_answers_load_no_compiler_and_no_graphs() -> None:
    for arguments in (["report", "--no-replay"], ["bounds"], ["simulate", "--no-replay"], ["explain", "L1"]):
        assert not {"numba", "scipy", "networkx", "matplotlib", "pandas"} & loaded_by(*arguments), arguments


def test_floors_of_a_memory_load_no_kernels() -> None:
    asked = ("bounds", "--heads", "1", "--head-dim", "64", "--seq", "1024", "--memory-elements", "65536")
    rooms = {"iosim.kernels", "iosim.links", "iosim.analysis", "iosim.certificate", "numpy"}
    assert not rooms & loaded_by(*asked)


def test_importing_iosim_loads_nothing() -> None:
    program = "import sys, iosim; print('numpy' in sys.modules, 'iosim.analysis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
