"""The growth table adds up, and its passes do what they say over what is written for them."""

from pathlib import Path

import pytest

from benchmarks.scale import PASSES, growth_line
from params.settings import load_settings
from pipeline_definition.checks.scale import GIB, memory_bytes_of

SETTINGS = load_settings(Path("params/sd2_base.yaml"))


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_runs_over_what_is_written_for_it(name: str, tmp_path: Path) -> None:
    _, run, write = PASSES[name]
    write(tmp_path, 10_000)
    run(tmp_path, 10_000)  # each asserts its own outcome


def test_what_grows_with_the_rows_breaks_where_the_line_meets_the_hosts_memory() -> None:
    sizes = [10_000, 100_000, 1_000_000]
    # 40 bytes a row beside a megabyte, and 2 us.
    line = growth_line("download", sizes, [(2e-6 * size, 1e6 + 40 * size) for size in sizes], SETTINGS)
    memory = memory_bytes_of(SETTINGS.download.job.instance_type)
    assert line["breaks_by"] == "memory" and line["host_GiB"] == memory / GIB
    assert line["bytes_a_row"] == 40 and line["us_a_row_at_10,000"] == 2
    assert line["breaks_at_rows"] == pytest.approx((memory - 1e6) / 40, rel=0.05)
    assert line["GiB_at_2e9"] == pytest.approx(40 * 2e9 / GIB, rel=0.05)
    assert line["cpu_h_at_2e9"] == pytest.approx(2e-6 * 2e9 / 3600, rel=0.05)


def test_what_does_not_grow_breaks_by_time_or_never() -> None:
    sizes = [10_000, 100_000]
    flat = growth_line("download", sizes, [(1e-6 * size, 5e6) for size in sizes], SETTINGS)
    assert flat["breaks_by"] == "time"
    assert flat["breaks_at_rows"] == pytest.approx(SETTINGS.download.job.max_runtime_s * 1e6, rel=0.05)
    assert growth_line("download", sizes, [(0.0, 0.0)] * 2, SETTINGS)["breaks_at_rows"] == float("inf")


def test_every_rank_of_a_training_host_makes_its_pass() -> None:
    sizes = [10_000, 100_000]
    figures = [(0.0, 8.0 * size) for size in sizes]
    one, all_ranks = (growth_line(section, sizes, figures, SETTINGS) for section in ("encode", "train"))
    assert all_ranks["GiB_at_2e9"] == pytest.approx(8 * one["GiB_at_2e9"], rel=0.05)
