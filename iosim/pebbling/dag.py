"""A computation as a directed acyclic graph over integer arrays.

Vertices are 0 .. n-1; an edge (u, v) says that computing v reads u. Both adjacency directions are
kept as compressed rows, so that a graph of a million edges costs tens of megabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iosim.errors import UsageError

Indices = NDArray[np.int64]
REPR_EDGES = 40  # a graph this small is shown as the call that builds it
CYCLE_SHOWN = 12  # vertices of a cycle that an error message names before it abbreviates


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Dag:
    """A finite acyclic computation. Build one with `from_edges`, `read_graph` or a builder."""

    child_start: Indices
    """where each vertex's children begin in `child`; n + 1 entries"""
    child: Indices
    """children of all vertices, ascending within a vertex"""
    parent_start: Indices
    """where each vertex's parents begin in `parent`; n + 1 entries"""
    parent: Indices
    """parents of all vertices, ascending within a vertex"""
    order: Indices
    """the vertices in one topological order"""
    extra_outputs: Indices
    """vertices with children that must end in slow memory too; sinks always must"""
    labels: tuple[str, ...] = ()
    """names of the vertices; empty when their numbers are their names"""

    @classmethod
    def from_edges(
        cls,
        edges: Indices | Iterable[tuple[int, int]],
        vertices: int | None = None,
        labels: Sequence[str] = (),
        outputs: Iterable[int] = (),
    ) -> Dag:
        """The graph of `edges`, pairs (u, v) where v reads u; parallel edges are merged.

        Args:
            edges: pairs, or an integer array of shape (E, 2).
            vertices: how many there are; default: as many as `labels`, else the largest number + 1.
            labels: one name per vertex.
            outputs: vertices beside the sinks that must end in slow memory.
        Raises:
            UsageError: no vertices, a self-loop, a cycle (one is named), or a number out of range.
        """
        pairs = np.asarray(edges if isinstance(edges, np.ndarray) else list(edges), dtype=np.int64).reshape(-1, 2)
        count = vertices if vertices is not None else len(labels) or int(pairs.max(initial=-1)) + 1
        names = tuple(labels)
        _check_range(pairs, count, names)
        pairs = _merged(pairs, count)
        child_start, child = _rows(pairs[:, 0], pairs[:, 1], count)
        parent_start, parent = _rows(pairs[:, 1], pairs[:, 0], count)
        order = _topological(child_start, child, np.diff(parent_start))
        if len(order) < count:
            cycle = _cycle(order, parent_start, parent, count)
            raise UsageError(f"the graph has a cycle: {_arrow(cycle, names)}", hint="a computation is acyclic")
        inner = sorted({int(v) for v in outputs if child_start[v] < child_start[v + 1]})
        extra = np.asarray(inner, dtype=np.int64)
        for array in (child_start, child, parent_start, parent, order, extra):
            array.setflags(write=False)
        return cls(child_start, child, parent_start, parent, order, extra, names)

    def __repr__(self) -> str:
        if len(self.child) <= REPR_EDGES:
            return f"Dag.from_edges({list(map(tuple, self.edges().tolist()))}, {self.vertices})"
        return f"<Dag: {self.vertices} vertices, {len(self.child)} edges>"

    @property
    def vertices(self) -> int:
        """How many vertices there are."""
        return len(self.child_start) - 1

    @property
    def in_degrees(self) -> Indices:
        """Parents of each vertex, shape (n,)."""
        return np.diff(self.parent_start)

    @property
    def out_degrees(self) -> Indices:
        """Children of each vertex, shape (n,)."""
        return np.diff(self.child_start)

    @property
    def sources(self) -> Indices:
        """Vertices without parents: the inputs, in slow memory at the start."""
        return np.flatnonzero(self.in_degrees == 0)

    @property
    def sinks(self) -> Indices:
        """Vertices without children: outputs, in slow memory at the end."""
        return np.flatnonzero(self.out_degrees == 0)

    @property
    def loaded(self) -> Indices:
        """Sources that some computation reads; each is loaded at least once."""
        return np.flatnonzero((self.in_degrees == 0) & (self.out_degrees > 0))

    @property
    def stored(self) -> Indices:
        """Computed outputs; each is stored at least once. A source is in slow memory from the start."""
        wanted = self.out_degrees == 0
        wanted[self.extra_outputs] = True
        return np.flatnonzero(wanted & (self.in_degrees > 0))

    @property
    def outputs_are_sinks(self) -> bool:
        """Whether no computed output is read again; two of the bounds are sharper then."""
        return not np.any(self.in_degrees[self.extra_outputs] > 0)

    @property
    def needed_elements(self) -> int:
        """The least fast memory any schedule needs: largest in-degree + 1 (no sliding)."""
        return int(self.in_degrees.max(initial=0)) + 1

    def children_of(self, vertex: int) -> Indices:
        """The vertices that read `vertex`."""
        return self.child[self.child_start[vertex] : self.child_start[vertex + 1]]

    def parents_of(self, vertex: int) -> Indices:
        """The vertices that `vertex` reads."""
        return self.parent[self.parent_start[vertex] : self.parent_start[vertex + 1]]

    def edges(self) -> Indices:
        """All edges (u, v), shape (E, 2), ascending."""
        return np.column_stack((np.repeat(np.arange(self.vertices), self.out_degrees), self.child))

    def label(self, vertex: int) -> str:
        """The name of a vertex."""
        return self.labels[vertex] if self.labels else str(vertex)

    def check_memory(self, memory_elements: int, where: str = "") -> None:
        """Refuse a fast memory in which some vertex cannot be computed at all.

        Raises:
            UsageError: fewer elements than the largest in-degree + 1; the message says what is needed.
        """
        if memory_elements >= self.needed_elements:
            return
        widest = int(np.argmax(self.in_degrees))
        raise UsageError(
            f"{memory_elements} elements of fast memory are too few: {self.label(widest)!r} reads "
            f"{self.in_degrees[widest]} values and needs a place of its own",
            where,
            f"use at least {self.needed_elements}",
        )


def _check_range(pairs: Indices, count: int, labels: Sequence[str]) -> None:
    if count < 1:
        raise UsageError("the graph is empty", hint="an edge list has a line `u v` per edge")
    if labels and len(labels) != count:
        raise UsageError(f"{len(labels)} labels for {count} vertices")
    if pairs.size and (pairs.min() < 0 or pairs.max() >= count):
        raise UsageError(f"an edge names a vertex outside 0 .. {count - 1}")
    loops = pairs[pairs[:, 0] == pairs[:, 1], 0]
    if loops.size:
        name = labels[loops[0]] if labels else str(loops[0])
        raise UsageError(f"vertex {name!r} reads itself", hint="a computation is acyclic")


def _merged(pairs: Indices, count: int) -> Indices:
    codes = np.unique(pairs[:, 0] * count + pairs[:, 1])
    return np.column_stack((codes // count, codes % count))


def _rows(tails: Indices, heads: Indices, count: int) -> tuple[Indices, Indices]:
    start = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(tails, minlength=count), out=start[1:])
    return start, heads[np.lexsort((heads, tails))]


def _topological(child_start: Indices, child: Indices, in_degrees: Indices) -> Indices:
    """Kahn's algorithm; shorter than n when there is a cycle."""
    waiting, start, heads = in_degrees.tolist(), child_start.tolist(), child.tolist()
    order = [vertex for vertex, degree in enumerate(waiting) if degree == 0]
    for vertex in order:
        for head in heads[start[vertex] : start[vertex + 1]]:
            waiting[head] -= 1
            if waiting[head] == 0:
                order.append(head)
    return np.asarray(order, dtype=np.int64)


def _cycle(order: Indices, parent_start: Indices, parent: Indices, count: int) -> list[int]:
    """One cycle, in edge direction: walk backwards among the vertices that Kahn could not reach."""
    stuck = np.ones(count, dtype=bool)
    stuck[order] = False
    seen: dict[int, int] = {}
    vertex = int(np.flatnonzero(stuck)[0])
    while vertex not in seen:
        seen[vertex] = len(seen)
        above = parent[parent_start[vertex] : parent_start[vertex + 1]]
        vertex = int(above[stuck[above]][0])
    return list(seen)[seen[vertex] :][::-1]


def _arrow(cycle: Sequence[int], labels: Sequence[str]) -> str:
    names = [labels[vertex] if labels else str(vertex) for vertex in cycle]
    shown = [*names[:CYCLE_SHOWN], "..."] if len(names) > CYCLE_SHOWN else names
    return " -> ".join([*shown, names[0]])
