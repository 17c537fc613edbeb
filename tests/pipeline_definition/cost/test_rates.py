"""Rates: who said them, and what is derived from FLOPs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from params.memory import ModelFigures, flops_at
from pipeline_definition.cost.rates import ScalingRun, gpu_of, load_rates, vcpus_of
from pipeline_definition.cost.training import CostError, training_cost
from pipeline_definition.cost.workload import declared_model
from pipeline_definition.jobs.instances import instance

RATES = load_rates()
H200, A10G = (gpu_of(instance(name), "TrainingInstanceType") for name in ("ml.p5en.48xlarge", "ml.g5.12xlarge"))
SD2, SD3 = declared_model("Stable Diffusion 2"), declared_model("Stable Diffusion 3 Medium")
# micro_diffusion's four stages (the configurations of https://github.com/SonyResearch/micro_diffusion, batch 2,048):
# FLOPs of a sample's forward and backward pass, by torch's counter on its published MicroDiT_XL_2 (1,165,442,320
# parameters, 77 caption vectors), and steps. 75 % of the patches are masked behind the patch mixer, or none.
MICRO_DIFFUSION = {
    "256 px, 75 % masked": (285_418_696_704, 250_000),
    "256 px": (730_614_706_176, 30_000),
    "512 px, 75 % masked": (1_121_774_972_928, 50_000),
    "512 px": (3_264_569_389_056, 5_000),
}

# Minutes from run_start to run_stop on one host in the logs of MLPerf Training 4.1 and 5.0 (medians of the runs of as
# many steps): Fujitsu's 4 H100, NVIDIA's others.
MLPERF_ON_ONE_HOST = [
    ("ml.p5.48xlarge", 4, 59.5),
    ("ml.p5.48xlarge", 8, 31.0),
    ("ml.p5en.48xlarge", 8, 30.5),
    ("ml.p6-b200.48xlarge", 8, 15.5),
]


def test_a_measured_rate_beats_a_published_one() -> None:
    published = next(entry for entry in RATES.train if entry.gpu == "H200")
    own = published.model_copy(update={"kind": "measured", "samples_per_s_per_gpu": 160.0, "source": "ours"})
    rates = RATES.model_copy(update={"train": [*RATES.train, own]})
    rate = rates.train_rate(SD2, H200, 512, text_online=True)
    assert (rate.samples_per_s, rate.kind, rate.source) == (160.0, "measured", "ours")


def test_a_rate_that_nobody_published_is_derived_from_flops_and_says_so() -> None:
    rate = RATES.train_rate(SD2, A10G, 256, text_online=True)
    assert rate.kind == "derived"
    assert rate.samples_per_s == pytest.approx(70e12 * 0.24 / ((539.3 + 45.1) * 1e9), rel=1e-4)
    assert "GFLOP" in rate.source


def test_mosaicmls_own_rate_is_reproduced_by_the_derived_utilisation() -> None:
    assert 312e12 * RATES.utilisation["train_unet"].value / 539.3e9 == pytest.approx(137.5, rel=0.02)


def test_micro_diffusions_bill_is_reproduced_from_its_samples_masking_and_price() -> None:
    flops = sum(each * steps * 2048 for each, steps in MICRO_DIFFUSION.values())
    gpu_hours = flops / (RATES.gpus["H100"].half * 1e12 * RATES.utilisation["train_transformer"].value) / 3600
    assert gpu_hours == pytest.approx(8 * 2.6 * 24, rel=0.05)
    assert training_cost(gpu_hours, 8, 8 * 3.75).usd == pytest.approx(1890, rel=0.05)


def test_a_transformer_is_reckoned_with_its_own_flops_its_encoders_and_its_own_utilisation() -> None:
    online, cached = (RATES.train_rate(SD3, H200, 512, text) for text in (True, False))
    denoiser, text = SD3.sample.denoiser_train[512], SD3.sample.text_encoders
    assert (online.kind, cached.kind) == ("derived", "derived")
    assert online.samples_per_s == pytest.approx(989e12 * 0.19 / (denoiser + text))
    assert cached.samples_per_s / online.samples_per_s == pytest.approx(1 + text / denoiser)
    # Stable Diffusion 2's published rate is not taken for another model.
    assert RATES.train_rate(SD2, H200, 512, True).kind == "published"


@pytest.mark.parametrize("model", [SD2, SD3])
@given(pixels=st.integers(8, 128).map(lambda side: 8 * side))
def test_flops_are_exact_at_the_counted_sizes_and_grow_with_the_pixels(model: ModelFigures, pixels: int) -> None:
    table = model.sample.denoiser_train
    assert {side: flops_at(table, side) for side in table} == table
    assert flops_at(table, pixels + 8) > flops_at(table, pixels) > 0


@pytest.mark.parametrize(("name", "vcpus"), [("ml.c6i.4xlarge", 16), ("ml.c6i.xlarge", 4), ("ml.m5.large", 2)])
def test_virtual_cpus_come_from_the_size(name: str, vcpus: int) -> None:
    assert vcpus_of(name) == vcpus


def test_a_host_of_no_known_size_is_an_error() -> None:
    with pytest.raises(CostError, match=r"ml\.c6i\.metal"):
        vcpus_of("ml.c6i.metal")


@pytest.mark.parametrize("run", RATES.scaling, ids=lambda run: f"{run.gpus}-{run.source[:20]}")
def test_the_model_of_scaling_is_within_ten_percent_of_every_published_run(run: ScalingRun) -> None:
    left = RATES.efficiency(run.gpus, run.global_batch_size, run.samples_per_s_alone)
    hours = run.samples / (run.gpus * run.samples_per_s_alone * left) / 3600
    assert hours == pytest.approx(run.hours, rel=0.05 if "MosaicML" in run.source else 0.1)


@given(st.integers(1, 512), st.integers(1, 512), st.integers(1, 8192), st.floats(1, 500))
def test_more_or_faster_gpus_never_scale_better_and_a_larger_batch_never_worse(
    gpus: int, more: int, batch: int, speed: float
) -> None:
    alone = RATES.efficiency(gpus, batch, speed)
    assert 0 < RATES.efficiency(gpus + more, batch, speed) <= alone <= 1
    assert RATES.efficiency(gpus, batch, 2 * speed) <= alone <= RATES.efficiency(gpus, 2 * batch, speed)


@pytest.mark.parametrize(("host", "gpus", "minutes"), MLPERF_ON_ONE_HOST)
def test_mlperfs_logged_times_on_one_host_come_out_within_ten_percent(host: str, gpus: int, minutes: float) -> None:
    rate = RATES.train_rate(SD2, gpu_of(instance(host), "TrainingInstanceType"), 512, text_online=True)
    assert 8000 * 256 / (gpus * rate.samples_per_s) / 60 == pytest.approx(minutes, rel=0.1)
