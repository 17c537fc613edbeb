"""Tests of the benchmarks' own arithmetic: what they measure is not asserted."""
