"""The graph type: adjacency, roles, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import networkx
import numpy as np
import pytest
from dag_strategies import dags
from hypothesis import given

from iosim.errors import UsageError
from iosim.pebbling import Dag, butterfly, draw, to_networkx


def test_roles_and_neighbours() -> None:
    dag = Dag.from_edges([(0, 2), (1, 2), (2, 3), (2, 3)], 5, labels="abcde")
    assert (dag.vertices, len(dag.child)) == (5, 3)  # the repeated edge is merged
    assert list(dag.parents_of(2)) == [0, 1]
    assert list(dag.children_of(2)) == [3]
    assert (list(dag.sources), list(dag.sinks)) == ([0, 1, 4], [3, 4])
    assert (list(dag.loaded), list(dag.stored)) == ([0, 1], [3])  # an isolated vertex moves nothing
    assert (dag.needed_elements, dag.label(3)) == (3, "d")


@given(dags(12))
def test_order_and_edges_agree_with_networkx(dag: Dag) -> None:
    rank = np.argsort(dag.order)
    assert sorted(dag.order) == list(range(dag.vertices))
    assert all(rank[u] < rank[v] for u, v in dag.edges())
    graph = to_networkx(dag)
    assert networkx.is_directed_acyclic_graph(graph)
    assert sorted((int(u), int(v)) for u, v in graph.edges) == [tuple(edge) for edge in dag.edges().tolist()]


def test_extra_outputs_are_those_that_are_read_again() -> None:
    dag = Dag.from_edges([(0, 1), (1, 2)], outputs=[0, 1, 2])
    assert list(dag.stored) == [1, 2]  # vertex 0 is an input: it is in slow memory already
    assert not dag.outputs_are_sinks
    assert Dag.from_edges([(0, 1), (1, 2)]).outputs_are_sinks
    assert list(Dag.from_edges([(0, 1), (1, 2)], outputs=[1]).stored) == [1, 2]


@pytest.mark.parametrize(
    ("edges", "vertices", "message"),
    [
        ([], None, "empty"),
        ([], 0, "empty"),
        ([(0, 0)], None, "'0' reads itself"),
        ([(0, 5)], 3, "outside 0 .. 2"),
        ([(-1, 0)], 3, "outside 0 .. 2"),
    ],
)
def test_impossible_graphs(edges: list[tuple[int, int]], vertices: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Dag.from_edges(edges, vertices)


def test_a_cycle_is_named_in_edge_direction() -> None:
    edges = [(0, 1), (1, 2), (2, 3), (3, 1), (3, 4)]
    with pytest.raises(UsageError) as caught:
        Dag.from_edges(edges, labels=["in", "a", "b", "c", "out"])
    names = caught.value.faults[0].what.split(": ")[1].split(" -> ")
    assert names[0] == names[-1]
    assert set(names) == {"a", "b", "c"}
    steps = {("a", "b"), ("b", "c"), ("c", "a")}
    assert set(pairwise(names)) == steps


def test_a_long_cycle_is_abbreviated() -> None:
    ring = [(v, (v + 1) % 1000) for v in range(1000)]
    with pytest.raises(UsageError, match=r"\.\.\."):
        Dag.from_edges(ring)


def test_too_little_memory_says_what_is_needed() -> None:
    dag = Dag.from_edges([(0, 3), (1, 3), (2, 3)], labels=["a", "b", "c", "sum"])
    dag.check_memory(4)
    with pytest.raises(UsageError, match="'sum' reads 3 values") as caught:
        dag.check_memory(3, "--memory-elements")
    assert caught.value.faults[0].where == "--memory-elements"
    assert "at least 4" in caught.value.faults[0].hint


def test_a_million_edges_are_fine() -> None:
    dag = butterfly(1 << 15)
    assert (dag.vertices, len(dag.child)) == (16 << 15, 2 * 15 << 15)


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    draw(butterfly(4), tmp_path / "fft.svg")
    assert (tmp_path / "fft.svg").stat().st_size > 1000
    with pytest.raises(UsageError, match="too many to draw"):
        draw(butterfly(256), tmp_path / "big.svg")
