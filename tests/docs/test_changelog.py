"""The numbers that the changelog tells are those of the data rooms."""

from __future__ import annotations

import re
from pathlib import Path

from iosim.kernels import kernel_names
from iosim.machine import device_names
from iosim.networks import network_names

CHANGELOG = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")


def told(what: str) -> int:
    found = re.search(rf"{what}: (\d+)", CHANGELOG)
    assert found, what
    return int(found[1])


def test_the_changelog_counts_what_there_is() -> None:
    assert told("Kernels") == len(kernel_names())
    assert told("Devices") == len(device_names())
    assert told("Networks") == len(network_names())
