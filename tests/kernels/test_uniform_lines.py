"""Where equal stretches cut a line of equal Q tiles: the closed form against the list of boundaries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iosim.kernels.stretches import Line, UniformLine, boundaries


@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 60), st.integers(0, 9))
def test_budgets_cut_where_the_boundaries_do(size: int, sequences: int, workers: int, overhead: int) -> None:
    line = Line(sequences, (size,), (1,), True)
    ends = boundaries(line, "flashmla", workers, overhead)
    cut = [head for head, _, before in map(line.place, ends[:-1]) if before]
    assert UniformLine(size, 1, sequences).budgets(workers, overhead) == (len(ends), len(cut), len(set(cut)))


@given(
    st.integers(1, 9), st.integers(1, 4), st.integers(1, 6), st.integers(1, 60), st.sampled_from(["whole", "balanced"])
)
def test_cuts_equal_those_of_the_boundaries(size: int, tiles: int, heads: int, workers: int, share: str) -> None:
    line = Line(heads, tuple(size * (tile + 1) for tile in range(tiles)), (1,) * tiles)
    ends = boundaries(line, share, workers)
    cut = [tile for _, tile, before in map(line.place, ends[:-1]) if before]
    found = UniformLine(size, tiles, heads).cuts(share, workers)
    assert found == (len(ends), len(cut), cut.count(tiles - 1))
