"""`iosim explain KERNEL`: every condition of a tile's rule is said."""

from __future__ import annotations

from test_bounds import Run


def test_tiles_say_when_they_hold(iosim: Run) -> None:
    text = iosim("explain", "mamba1").out
    assert "  128x1      head size up to 256, queries x group up to 128\n" in text
    assert "  2048x1     head size up to 256\n" in text
    assert "elements up to 8 bits" in iosim("explain", "trtllm").out


def test_a_long_parameter_keeps_its_column(iosim: Run) -> None:
    lines = [line for line in iosim("explain", "mamba1").out.splitlines() if " default " in line]
    assert len(lines) == 6
    assert len({line.index(" default ") for line in lines}) == 1
