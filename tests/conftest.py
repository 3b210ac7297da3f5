"""Markers and Hypothesis profiles shared by every test."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# text is as wide as it is, whatever the terminal that runs the tests: parallel runs pass its width on
os.environ.pop("COLUMNS", None)

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile(
    "ci", max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", max_examples=3000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run tests marked slow")
    parser.addoption("--run-gpu", action="store_true", help="also run tests marked gpu")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker in ("slow", "gpu"):
        if not config.getoption(f"--run-{marker}"):
            skip = pytest.mark.skip(reason=f"needs --run-{marker}")
            for item in items:
                if marker in item.keywords:
                    item.add_marker(skip)
