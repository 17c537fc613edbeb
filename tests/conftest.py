"""The order in which the files start, and how many threads a process of the tests computes with."""

import os

import pytest

# Two workers share the machine: threads of one that wait for those of the other take many times as long. The processes
# that the tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A file that takes minutes and starts last leaves the other worker idle; two that start at once slow each other down.
FIRST = "tests/end_to_end/test_local_pipeline.py"
LATER = ("tests/end_to_end/", "tests/steps/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest file, and have what is left of the long ones in the middle."""
    items.sort(key=lambda item: (not item.nodeid.startswith(FIRST), item.nodeid.startswith(LATER)))
