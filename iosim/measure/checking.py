"""Whether a kernel on a GPU computes attention: all of a small case, and rows of every head of the case that is timed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from iosim.errors import CheckError
from iosim.measure.cases import PROBES, Case
from iosim.measure.cuda_call import Call

if TYPE_CHECKING:
    from iosim.measure.cuda import CudaMachine

#: relative error of a head against single precision beyond which a kernel is wrong
TOLERANCE = 2e-2
#: tokens of a small case: no multiple of a tile's rows or keys, and a multiple of 16, for which Triton compiles as for large ones
SMALL = 272
#: rows of a head that are looked at
ROWS = 64


def small_of(case: Case) -> Case | None:
    """The same kernel with the same choices on few tokens; None of probes, and of FlexAttention, compiled for each length."""
    if case.kernel in PROBES or case.kernel == "flex":
        return None
    few = replace(case, batch=min(2, case.batch), seq_q=min(SMALL, case.seq_q), seq_kv=min(SMALL, case.seq_kv))
    return replace(few, experiment="")


def check(machine: CudaMachine, case: Case, call: Call, made: Any, rows: int = ROWS) -> float:
    """Largest relative error of a head's rows.

    Raises:
        CheckError: it is too large, or an element was not written.
    """
    if case.kernel in PROBES:
        return 0.0
    whole = call.result(made)
    if not bool(machine.torch.isfinite(whole).all()):
        raise CheckError(f"{case.kernel} leaves elements that are no numbers", case.key)
    wrong = error_of(machine, case, call, whole, rows)
    if not wrong < TOLERANCE:
        raise CheckError(f"{case.kernel} is wrong by {wrong:.1e}", case.key)
    return wrong


def error_of(machine: CudaMachine, case: Case, call: Call, result: Any, rows: int = ROWS) -> float:
    """Largest relative error of some rows of any head against a softmax in single precision; not a number where one is not."""
    torch, group = machine.torch, case.heads // case.kv_heads
    chosen = torch.linspace(0, case.seq_q - 1, min(rows, case.seq_q), device=machine.place).long()
    hidden = _hidden(torch, case, chosen, machine.place)
    errors = []
    for batch in range(case.batch):
        for head in range(case.heads):
            q, k, v = (
                each[batch, index].float()
                for each, index in zip(call.tensors, (head, head // group, head // group), strict=True)
            )
            scores = q[chosen] @ k.T / math.sqrt(case.head_dim)
            if hidden is not None:
                scores = scores.masked_fill(hidden, -math.inf)
            exact = torch.softmax(scores, -1) @ v
            errors.append((result[batch, head][chosen].float() - exact).norm() / exact.norm())
    found = [float(error) for error in errors]  # the GPU is waited for once, not once per head
    return math.nan if any(map(math.isnan, found)) else max(found)


def _hidden(torch: Any, case: Case, rows: Any, place: str) -> Any:
    """Where a key is masked; None where none is."""
    if case.mask == "full":
        return None
    keys = torch.arange(case.seq_kv, device=place)[None, :]
    aligned = rows[:, None] + case.seq_kv - case.seq_q
    window = int(case.mask.partition(":")[2] or case.seq_kv)
    return (keys > aligned) | (keys <= aligned - window)
