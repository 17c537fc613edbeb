import numpy as np
import pytest

from steps.data.encoding.encoder import moments_sums
from steps.data.encoding.latents_artifact import LatentsRecord, check_shard, check_statistics, statistics
from steps.data.latents.latents_manifest import BuiltShard, IndexedShard, LatentsShard
from steps.errors import StepError


def record(values: np.ndarray, std: float = 0.0, psnr_db: float = 30.0) -> LatentsRecord:
    listed = LatentsShard(name="train-00000.tar", split="train", rows=len(values), bytes=1, sha256="")
    indexed = IndexedShard(name="train-00000.tar", split="train", block_rows=(), offsets=(), sizes=(), xxh3=())
    sums = tuple(moments_sums(values, np.full_like(values, std)))
    return LatentsRecord(plan_digest="", shard=BuiltShard(listed=listed, indexed=indexed), sums=sums, psnr_db=psnr_db)


def test_statistics_are_those_of_all_elements_and_of_each_channel() -> None:
    values = np.random.default_rng(0).normal(2, 3, (40, 4, 5, 5)) + np.arange(4)[:, None, None]
    found = statistics([record(values[:13], std=0.5), record(values[13:], std=0.5)])
    assert found.mean == pytest.approx(values.mean())
    assert found.std == pytest.approx(np.sqrt(values.var() + 0.25))
    assert found.channel_means == pytest.approx(values.mean(axis=(0, 2, 3)))
    assert found.channel_stds == pytest.approx(np.sqrt(values.var(axis=(0, 2, 3)) + 0.25))


def test_the_order_of_the_shards_does_not_change_a_bit() -> None:
    values = np.random.default_rng(0).normal(0, 1, (60, 4, 5, 5))
    records = [record(values[start : start + 7]) for start in range(0, 60, 7)]
    assert statistics(records) == statistics(records[::-1])


@pytest.mark.parametrize("factor", [1.0, 1.7, 0.6])
def test_a_spread_near_one_passes(factor: float) -> None:
    check_statistics(statistics([record(np.random.default_rng(0).normal(0, 2, (40, 4, 5, 5)))]), factor / 2)


@pytest.mark.parametrize("factor", [0.18215, 2.2, 0.0])
def test_a_spread_far_from_one_ends_the_step(factor: float) -> None:
    with pytest.raises(StepError, match=r"standard deviation is 1\.997, times scaling_factor .* should be near 1"):
        check_statistics(statistics([record(np.random.default_rng(0).normal(0, 2, (40, 4, 5, 5)))]), factor / 2)


def test_a_centre_far_from_zero_ends_the_step() -> None:
    check_statistics(statistics([record(np.random.default_rng(0).normal(0.9, 1, (40, 4, 5, 5)))]), 1.0)
    with pytest.raises(StepError, match=r"mean times scaling_factor 1 is 1\.1.*, and should be near 0"):
        check_statistics(statistics([record(np.random.default_rng(0).normal(1.2, 1, (40, 4, 5, 5)))]), 1.0)


@pytest.mark.parametrize("psnr_db", [14.9, 3.0, float("nan")])
def test_latents_that_decode_to_something_else_end_the_step(psnr_db: float) -> None:
    values = np.random.default_rng(0).normal(0, 1, (40, 4, 5, 5))
    check_shard(record(values, psnr_db=15.0), 1.0)
    with pytest.raises(StepError, match=r"latents of train-00000\.tar decode to other pictures"):
        check_shard(record(values, psnr_db=psnr_db), 1.0)


def test_a_shard_is_refused_in_one_line_that_names_all_that_is_wrong_and_its_likely_causes() -> None:
    check_shard(record(np.random.default_rng(0).normal(0, 1, (40, 4, 5, 5))), 1.0)
    with pytest.raises(StepError) as raised:
        check_shard(record(np.random.default_rng(0).normal(0, 0.1, (40, 4, 5, 5)), psnr_db=13.2), 1.0)
    line = str(raised.value)
    assert "PSNR 13.2 dB" in line and "standard deviation is 0.100" in line
    for cause in ("weights are damaged", "another VAE's", "of a kind that this VAE has not seen"):
        assert cause in line
