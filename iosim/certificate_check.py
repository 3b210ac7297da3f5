"""Checks a certificate: every claim is derived again from the document's inputs alone.

What holds: the count is the one the kernel's schedule gives, each claimed floor is at most the one that is
proven, each ratio is at least count over proven floor, and the statement says what the numbers say. A floor
that iosim can raise today does not make an older certificate false.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from iosim.attention import BITS, Attention, Shape, Types
from iosim.certificate import CLASSES, SCHEMA, Certificate, Claim, certify, within
from iosim.errors import AbsentError, Fault, FileError, UsageError
from iosim.machine import load_device
from iosim.masks import parse_tile
from iosim.problem_builder import bind_lengths
from iosim.report import Options

LARGEST_BYTES = 8 << 20
PROBLEM = {
    "batch": int, "heads": int, "kv_heads": int, "head_dim": int, "head_dim_v": int, "latent": bool, "phase": str,
    "seq": str, "seq_kv": str, "mask": str, "types": dict,
}  # fmt: skip
KERNEL = {"name": str, "tile": str, "pack_gqa": bool, "settings": dict}
INPUTS = {
    "problem": dict, "kernel": dict, "device": dict, "memory_elements": int, "boundary": str, "warm": bool,
    "lse_output": bool, "held_dtype": str,
}  # fmt: skip
OPTIONAL = frozenset({"device", "memory_elements", "boundary", "held_dtype"})
CLAIM = {
    "boundary": str, "memory_bits": int, "processors": int, "read_bytes": int, "write_bytes": int, "exact": bool,
    "method": str, "floor_bytes": dict, "binding": dict, "within": dict, "statement": str,
}  # fmt: skip


def read_certificate(path: Path) -> dict[str, Any]:
    """A certificate from a file: the document itself, or the JSON answer that holds it.

    Raises:
        FileError: missing, not JSON, or not shaped like a certificate; all faults at once.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", str(path)) from None
    if len(data) > LARGEST_BYTES:
        raise FileError(f"{len(data)} bytes are too many for a certificate", str(path))
    try:
        document = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise FileError(f"is not JSON: {error}", str(path)) from None
    if isinstance(document, dict) and isinstance(document.get("result"), dict):
        document = document["result"].get("certificate", document)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise FileError(f"is no certificate: its schema is not {SCHEMA!r}", str(path),
                        "write one with `iosim bounds --certify KERNEL -o FILE.json`")  # fmt: skip
    faults = list(_shape_faults(document, str(path)))
    if faults:
        raise FileError(faults=faults)
    return document


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _shape_faults(document: Mapping[str, Any], file: str) -> Iterator[Fault]:
    inputs, claims = document.get("inputs"), document.get("claims")
    if not isinstance(inputs, dict) or not isinstance(claims, list) or not claims:
        yield Fault("a certificate has 'inputs' and at least one of 'claims'", file)
        return
    yield from _table_faults(inputs, INPUTS, f"{file}: inputs")
    for name, shape in (("problem", PROBLEM), ("kernel", KERNEL)):
        if isinstance(inputs.get(name), dict):
            yield from _table_faults(inputs[name], shape, f"{file}: inputs.{name}")
    for index, claim in enumerate(claims):
        where = f"{file}: claims[{index}]"
        if not isinstance(claim, dict):
            yield Fault("is not a table", where)
            continue
        yield from _table_faults(claim, CLAIM, where)
        for name, kind in (("floor_bytes", int), ("within", (int, float)), ("binding", str)):
            for key, value in claim[name].items() if isinstance(claim.get(name), dict) else ():
                if key not in CLASSES or isinstance(value, bool) or not isinstance(value, kind):
                    yield Fault(f"{key!r}: {value!r} is no {name} of a class", f"{where}.{name}")


def _table_faults(table: Mapping[str, Any], shape: Mapping[str, type], where: str) -> Iterator[Fault]:
    for name, kind in shape.items():
        value = table.get(name)
        if name not in table:
            yield Fault(f"lacks {name!r}", where)
        elif value is None and name in OPTIONAL:
            continue
        elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            yield Fault(f"{name} should be {kind.__name__}, is {type(value).__name__}", where)


def derive(document: Mapping[str, Any], where: str = "certificate") -> Certificate:
    """The certificate that the document's inputs give today.

    Raises:
        FileError: inputs that make no problem, or a kernel or device that is not there.
    """
    inputs = document["inputs"]
    try:
        device = load_device(str(inputs["device"]["name"])) if inputs["device"] else None
        if inputs["held_dtype"] is not None and inputs["held_dtype"] not in BITS:
            raise UsageError(f"unknown element type {inputs['held_dtype']!r}", "held_dtype")
        kernel = inputs["kernel"]
        options = Options(
            tile=parse_tile(kernel["tile"]),
            settings=kernel["settings"],
            pack_gqa=kernel["pack_gqa"],
            warm=inputs["warm"],
            lse_output=inputs["lse_output"],
        )
        return certify(
            _problem(inputs["problem"]), kernel["name"], device, options,
            memory_elements=inputs["memory_elements"], boundary=inputs["boundary"], held=inputs["held_dtype"],
        )  # fmt: skip
    except (UsageError, AbsentError, FileError, KeyError, TypeError) as error:
        what = "; ".join(map(str, error.faults)) if isinstance(error, UsageError | AbsentError | FileError) else error
        raise FileError(f"its inputs make no certificate: {what}", where) from None


def _problem(given: Mapping[str, Any]) -> Attention:
    sizes = {name: given[name] for name in ("batch", "heads", "kv_heads", "head_dim", "head_dim_v", "latent")}
    types = Types(**given["types"])
    for name in given["types"].values():
        if name not in BITS:
            raise UsageError(f"unknown element type {name!r}", "types")
    return Attention(Shape(**sizes), bind_lengths(given["mask"], given["seq"], given["seq_kv"]), types, given["phase"])


def check_certificate(document: Mapping[str, Any], where: str = "certificate") -> tuple[Certificate, list[Fault]]:
    """What the inputs give today, and every claim of the document that does not hold.

    Args:
        document: as `read_certificate` returns it.
        where: the file, for messages.
    Raises:
        FileError: inputs that cannot be used.
    """
    derived = derive(document, where)
    faults = []
    device, now = document["inputs"]["device"], derived.inputs["device"]
    if device and device.get("sha256") != now["sha256"]:
        faults.append(Fault(f"the file of device {device['name']} is not the one certified", where))
    proven = {claim.boundary: claim for claim in derived.claims}
    for claimed in document["claims"]:
        at = f"{where}: {claimed['boundary']}"
        if claimed["boundary"] not in proven:
            faults.append(Fault("no such boundary can be certified from these inputs", at))
        else:
            faults += [Fault(what, at) for what in _differences(claimed, proven[claimed["boundary"]], derived.kernel)]
    return derived, faults


def _differences(claimed: Mapping[str, Any], proven: Claim, kernel: str) -> Iterator[str]:
    for name in ("memory_bits", "processors", "read_bytes", "write_bytes"):
        if claimed[name] != getattr(proven, name):
            yield f"{name} is {getattr(proven, name):,}, not {claimed[name]:,}"
    if claimed["exact"] and not proven.exact:
        yield "the count is a model's, not exact"
    for name, floor in claimed["floor_bytes"].items():
        known = proven.floor_bytes.get(name, 0)
        if floor > known:
            yield f"a floor of {floor:,} bytes for class {name} is not proven: {known:,} bytes are"
    for name, ratio in claimed["within"].items():
        floor = proven.floor_bytes.get(name, 0)
        if not floor or ratio < within(proven.total_bytes, floor):
            yield f"within {ratio:g}x of class {name} does not hold: {proven.within.get(name, 'no bound')}"
    said = Claim(**{name: claimed[name] for name in Claim.__dataclass_fields__})
    if set(said.within) != set(said.floor_bytes) or claimed["statement"] != said.statement(kernel):
        yield "its statement is not what its numbers say"
