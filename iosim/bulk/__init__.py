"""Counts of many problems at once: the kernels' own formulas over int64 arrays, proven not to overflow."""

from iosim.bulk.counting import CLOSED, count_many
from iosim.bulk.result import ManyCounts

__all__ = ["CLOSED", "ManyCounts", "count_many"]
