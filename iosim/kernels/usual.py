"""The kernels of a report that names none."""

from __future__ import annotations

from iosim.attention import Attention
from iosim.errors import UsageError
from iosim.kernels.kernel_room import load_kernel
from iosim.kernels.scheduling import no_batch
from iosim.machine import Device

#: phase -> catalogue names
DEFAULT_KERNELS = {
    "prefill": ("unfused", "flash1", "flash2", "flash3"),
    "decode": ("split-kv",),
    "backward": ("flash2-backward",),
}


def usual_kernels(
    problem: Attention, device: Device | None, typed_tile: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the usual kernels whose code computes this call, and why the others are left out.

    Raises:
        UsageError: none of them does.
    """
    names, notes, refusal = [], [], None
    for name in (*(("cascade",) if problem.shared_keys else ()), *default_kernels(problem.phase, device)):
        file = load_kernel(name)
        try:
            file.check_types(problem.types)
            if refused := no_batch(file, problem):
                raise UsageError(refused, "--seq-kv")
            if not typed_tile:
                file.rule(problem, device)
            names.append(name)
        except UsageError as error:
            refusal = error
            notes.append(f"{error.faults[0].what}: left out")
    if refusal and not names:
        raise refusal
    return tuple(names), tuple(notes)


def default_kernels(phase: str, device: Device | None) -> tuple[str, ...]:
    """The kernels of a report that names none: the phase's usual ones, or what exists on the device in their place."""
    there: list[str] = []
    for name in DEFAULT_KERNELS.get(phase, ("flash2",)):
        others = load_kernel(name).instead.get(device.architecture, ()) if device else ()
        there += others[:1] or (name,)
    return tuple(dict.fromkeys(there))
