"""Whether kernels of one figure come out in the order in which they were measured: Kendall's tau."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from iosim.timing.calls import Floats
from iosim.timing.work import Work
from iosim.validate.timings import Timings

#: measured times closer than this are nearly a tie, which labels of three digits and another run may turn round
CLEAR = 1.05
#: shape, as all kernels of a figure share it
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """Kernels of one device, shape and passes in one paper."""

    paper: str
    """who published them"""
    device: str
    """catalogue name"""
    work: str
    """passes"""
    shape: Shape
    """the columns of `Calls`"""
    kernels: tuple[str, ...]
    """fastest measured first"""
    tau: float
    """tau-b of predicted against measured times"""
    concordant: int
    """pairs of kernels in the measured order"""
    pairs: int
    """pairs of kernels whose measured times differ"""
    discordant: int
    """pairs of kernels the other way round"""
    clear: int
    """pairs measured more than 5 % apart"""
    clear_agreement: int
    """of them those in order, less those the other way round"""


@dataclass(frozen=True, slots=True)
class Orders:
    """All figures together."""

    groups: int
    """figures' shapes with at least two kernels"""
    mean_tau: float
    """mean of tau over them"""
    median_tau: float
    """median"""
    perfect: int
    """groups with every pair in order"""
    pairs: int
    """pairs of kernels over all groups"""
    concordant: int
    """of them in the measured order"""
    discordant: int
    """of them the other way round; the rest are predicted alike"""
    clear: int
    """pairs measured more than 5 % apart"""
    clear_agreement: int
    """of them those in order, less those the other way round"""

    @property
    def tau(self) -> float:
        """(concordant - discordant) / pairs over all groups: long figures weigh more than in the mean."""
        return (self.concordant - self.discordant) / self.pairs

    @property
    def clear_tau(self) -> float | None:
        """The same over the pairs that are no near tie; None without any."""
        return self.clear_agreement / self.clear if self.clear else None

    @classmethod
    def of(cls, orders: Sequence[Order]) -> Orders:
        """The summary of some groups; at least one."""
        taus = np.array([order.tau for order in orders])
        return cls(
            len(orders), float(taus.mean()), float(np.median(taus)), sum(o.concordant == o.pairs for o in orders),
            sum(o.pairs for o in orders), sum(o.concordant for o in orders),
            sum(o.discordant for o in orders), sum(o.clear for o in orders), sum(o.clear_agreement for o in orders),
        )  # fmt: skip

    def to_dict(self) -> dict[str, object]:
        """Its numbers."""
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "tau": self.tau, "clear_tau": self.clear_tau}


def orders_of(tables: Sequence[tuple[Timings, Floats]]) -> list[Order]:
    """Every group of at least two kernels that a paper timed on one device and shape.

    Args:
        tables: measured rows with a prediction each. Of a kernel given twice the first row counts.
    """
    found: dict[tuple[str, str, Work, Shape], dict[str, tuple[float, float]]] = {}
    for timings, predicted in tables:
        if not timings.paper or not predicted.size:
            continue
        work = replace(timings.work, whole_heads=False)  # how a kernel was cut, not what it computes
        columns = [getattr(timings.calls, f.name).tolist() for f in fields(timings.calls)]
        for index, shape in enumerate(zip(*columns, strict=True)):
            group = found.setdefault((timings.paper, timings.device.key, work, tuple(map(int, shape))), {})
            name = f"{timings.kernel} {timings.layouts[index].mask}" if timings.layouts else timings.kernel
            group.setdefault(name, (float(timings.time_s[index]), float(predicted[index])))
    made = [_order(key, kernels) for key, kernels in found.items() if len(kernels) > 1]
    return [order for order in made if order.pairs]  # where all are alike there is no order


def _order(key: tuple[str, str, Work, Shape], kernels: dict[str, tuple[float, float]]) -> Order:
    from scipy.stats import kendalltau

    paper, device, work, shape = key
    names = sorted(kernels, key=lambda name: kernels[name][0])
    measured = [kernels[name][0] for name in names]
    predicted = [kernels[name][1] for name in names]
    couples = [(i, j) for i in range(len(names)) for j in range(i) if measured[i] != measured[j]]
    signs = {(i, j): _sign((measured[i] - measured[j]) * (predicted[i] - predicted[j])) for i, j in couples}
    clear = [(i, j) for i, j in couples if measured[i] > CLEAR * measured[j]]
    tau = float(kendalltau(measured, predicted, variant="b").statistic) if len(set(predicted)) > 1 else 0.0
    found = list(signs.values())
    counts = (found.count(1), len(couples), found.count(-1), len(clear), sum(signs[couple] for couple in clear))
    return Order(paper, device, str(work), shape, tuple(names), tau, *counts)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
