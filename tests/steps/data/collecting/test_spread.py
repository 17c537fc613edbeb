"""The same work on parts, in this process and on a cluster of Ray: the same results, in the parts' order."""

import subprocess
import sys

PROGRAM = """
import os, sys
from steps.container import Cluster
from steps.data.collecting.spread import MOST_AT_ONCE, spread
from steps.ray_cluster import leading

asked = 0

def parts():
    global asked
    for asked in range(1, 41):
        yield asked, 7

def work(part, factor):
    return part * factor, os.getpid()

def check(is_here):
    results = spread(work, parts())
    found = [next(results)]
    assert asked <= MOST_AT_ONCE
    found += results
    assert [product for product, _ in found] == [7 * part for part in range(1, 41)]
    assert {pid == os.getpid() for _, pid in found} == {is_here}

check(is_here=True)
with leading(Cluster(("algo-1",), "algo-1", "127.0.0.1", 0, 0), "spread", 120.0):
    check(is_here=False)
"""


def test_parts_are_dealt_with_in_order_here_or_as_tasks_of_the_cluster() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
