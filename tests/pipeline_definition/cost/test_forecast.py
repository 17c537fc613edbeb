"""The forecast: its arithmetic, where it says each figure comes from, and what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from params.settings import load_settings
from pipeline_definition.cost.forecast import Forecast, caption_note, forecast
from pipeline_definition.cost.jobs import ForecastLine
from pipeline_definition.cost.prices import load_prices
from pipeline_definition.cost.rates import load_rates
from pipeline_definition.cost.storage import Surroundings, fsx_gib
from pipeline_definition.cost.tables import forecast_json, forecast_notes
from pipeline_definition.cost.training import CostError
from tests.pipeline_definition.cost.samples import changed, definition, settings, without_price
from tests.pipeline_definition.definitions import definition_of


def bill(around: Surroundings | None = None, rows: int | None = None, **parameters: str) -> Forecast:
    return forecast(settings(), definition(), parameters, around, rows)


def usd(entry: ForecastLine) -> float:
    dollars = entry.usd["on_demand"]
    assert dollars is not None
    return dollars


def line(forecasted: Forecast, step: str) -> ForecastLine:
    return next(line for line in forecasted.lines if line.step == step)


def test_every_step_and_what_stands_beside_has_a_line_with_its_source() -> None:
    found = bill()
    steps = [entry.step for entry in found.lines]
    assert steps == [
        "Download", "Encode", "Tune", "Train", "Evaluate", "FSx for Lustre", "S3 storage", "S3 requests",
    ]  # fmt: skip
    assert all(entry.rate and entry.price and (entry.usd["on_demand"] or 0) > 0 for entry in found.lines)
    assert {entry.rate_kind for entry in found.lines} == {"published", "derived", "assumed"}
    assert [entry.step for entry in found.monthly] == ["EndpointConfig"]


def test_training_is_the_published_rate_the_text_encoder_the_start_and_the_price() -> None:
    train = line(bill(), "Train")
    rate = 137.5 * 539.3 / (539.3 + 45.1)
    hours = (480 + 51_200_000 / (rate * 8)) / 3600
    assert train.hours == pytest.approx(hours, rel=1e-4)
    assert train.gpu_hours == pytest.approx(8 * train.hours)
    assert train.usd["on_demand"] == pytest.approx(train.hours * 25.251286)
    assert "MosaicML" in train.rate


def test_a_changed_parameter_changes_its_line_alone() -> None:
    before, after = bill(), bill(TrainingSamples="102400000")
    assert line(after, "Train").hours > 1.9 * line(before, "Train").hours
    assert line(after, "Encode") == line(before, "Encode")


def test_a_second_phase_is_reckoned_at_its_own_resolution_and_its_encode_runs_beside_the_first() -> None:
    found = forecast(load_settings(Path("params/sd2_base.yaml")), definition_of("sd2_base"), {})
    first, second = line(found, "Train"), line(found, "TrainPhase2")
    assert "256 px, 1,126,400,000 samples" in first.what and "512 px, 1,740,800,000 samples" in second.what
    rates = [137.5 * 539.3 / (539.3 + 45.1), 36.3 * 2409.0 / (2409.0 + 45.1)]
    speeds = [rate * load_rates().efficiency(64, 2048, rate) for rate in rates]
    seconds = [samples / speed for samples, speed in zip((1_126_400_000, 1_740_800_000), speeds, strict=True)]
    assert (second.hours - 480 / 3600) / (first.hours - 480 / 3600) == pytest.approx(seconds[1] / seconds[0], rel=1e-4)
    assert found.workload.latents_bytes == 1_130_000_000 * (16_384 + 154 + 65_536 + 154)
    hours = {entry.step: entry.hours for entry in found.lines}
    beside = min(hours["EncodePhase2"], hours["Encode"] + hours["Tune"] + hours["Train"])
    assert found.hours == pytest.approx(sum(hours.values()) - beside)


def test_a_set_is_forecast_as_the_model_that_it_declares() -> None:
    flow = changed(data={"model": "Stable Diffusion 3 Medium"})
    found, before = forecast(flow, definition(), {"TrainingInstanceType": "ml.p5.48xlarge"}), bill()
    flops = 2_525_037_379_584 + 2_507_754_541_056
    hours = (480 + 51_200_000 * flops / (8 * 989e12 * 0.19)) / 3600
    assert line(found, "Train").hours == pytest.approx(hours)
    # 16 channels of moments and 410 token ids; the weights of all encoders.
    assert found.workload.latents_bytes == 3_300_000 * 2 * (2 * 16 * 32**2 + 410)
    assert found.workload.checkpoints_bytes == 2 * 16 * 2_028_328_000
    assert found.workload.model_bytes == pytest.approx(4 * 7.69e9, rel=1e-3)
    assert line(found, "Evaluate").hours > 3 * line(before, "Evaluate").hours


def test_stored_embeddings_are_advised_where_they_are_cheaper() -> None:
    note = caption_note(bill(), settings(), definition(), {})
    stored = changed(encode={"caption_embeddings": True})
    cheaper = forecast(stored, definition(), {})
    assert f"true would make it ${bill().usd('on_demand') - cheaper.usd('on_demand'):,.2f} cheaper" in note
    assert caption_note(cheaper, stored, definition(), {}) == ""
    # Three encoders store nothing.
    flow = changed(data={"model": "Stable Diffusion 3 Medium"})
    assert caption_note(forecast(flow, definition(), {}), flow, definition(), {}) == ""


def test_a_model_that_nobody_counted_is_refused_by_name() -> None:
    with pytest.raises(CostError, match=r"data\.model: 'sd4' is none of 'Stable Diffusion 2', .*steps memory"):
        forecast(changed(data={"model": "sd4"}), definition(), {})


def test_more_hosts_cost_more_and_take_less_time() -> None:
    one, eight = line(bill(), "Train"), line(bill(TrainingInstanceCount="8"), "Train")
    assert eight.hours < one.hours
    assert usd(eight) > usd(one)


def test_only_train_is_cheaper_on_spot_instances() -> None:
    found = bill()
    cheaper = {entry.step for entry in found.lines if entry.usd["spot"] != entry.usd["on_demand"]}
    assert cheaper == {"Train"}


def test_a_price_that_is_not_known_is_named_and_the_total_says_that_it_is_the_most() -> None:
    found = bill(TrainingInstanceType="ml.p4de.24xlarge")
    assert line(found, "Train").usd["spot"] is None
    assert found.is_bound("spot") and not found.is_bound("on_demand")
    assert found.usd("spot") == pytest.approx(found.usd("on_demand"))
    assert "spot of ml.p4de.24xlarge" in found.missing
    assert any("spot of ml.p4de.24xlarge" in note for note in forecast_notes(found))


def test_an_instance_type_without_a_price_is_an_error_that_names_it_and_the_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline_definition.cost.forecast.load_prices", lambda: without_price("ml.p4d.24xlarge"))
    with pytest.raises(CostError, match=r"ml\.p4d\.24xlarge.*cost prices refresh --add ml\.p4d\.24xlarge"):
        forecast(settings(), definition(), {})


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"TrainingInstanceType": "ml.c6i.4xlarge"}, "TrainInstanceType|no GPU"),
        ({"TrainingSamples": "0"}, "TrainingSamples"),
        ({"TrainingInstanceCount": "0"}, "TrainingInstanceCount"),
        ({"NoSuch": "1"}, "NoSuch"),
    ],
)
def test_a_parameter_that_cannot_be_reckoned_with_is_named(parameters: dict[str, str], named: str) -> None:
    with pytest.raises(CostError, match=named):
        forecast(settings(), definition(), parameters)


def test_rows_come_from_the_option_then_the_limit_then_the_set() -> None:
    assert bill(rows=1000).workload.rows == 1000
    assert bill(MaxRows="5000").workload.rows == 5000
    assert bill(MaxRows="5000000").workload.rows == 3_300_000
    assert bill().workload.rows_source == "data.rows"
    unknown = forecast(changed(data={"rows": 0}), definition(), {})
    assert unknown.workload.rows == sum(phase.training_samples for phase in unknown.workload.phases)


def test_the_file_system_holds_the_latents_and_is_billed_by_tier_and_hours() -> None:
    assert fsx_gib(1.0) == 1200
    assert fsx_gib(18.6e12) == 24_000
    slow = usd(line(bill(Surroundings(2400, 125)), "FSx for Lustre"))
    fast = usd(line(bill(Surroundings(2400, 1000)), "FSx for Lustre"))
    assert fast == pytest.approx(slow * 0.600 / 0.145)
    with pytest.raises(CostError, match="--fsx-throughput 300"):
        bill(Surroundings(2400, 300))


def test_a_set_that_reads_from_s3_pays_for_no_file_system() -> None:
    found = forecast(changed(file_system={"kind": "s3"}), definition(), {})
    assert "FSx for Lustre" not in {entry.step for entry in found.lines}


def test_jobs_in_a_private_network_pay_for_its_endpoints_and_the_download_for_its_way_out() -> None:
    inside = definition() | {"Steps": [dict(step) for step in definition()["Steps"]]}
    download = inside["Steps"][0]
    vpc = {"VpcConfig": {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}}
    download["Arguments"] = download["Arguments"] | {"NetworkConfig": vpc}
    found = forecast(settings(), inside, {})
    nat = line(found, "NAT gateway")
    assert usd(nat) >= 3_300_000 * 250_000 / 1e9 * 0.045
    assert usd(line(found, "Private endpoints")) > 0


def test_a_set_for_this_machine_has_no_forecast() -> None:
    local = load_settings(Path("params/local.yaml"))
    with pytest.raises(CostError, match="this machine"):
        forecast(local, definition(), {})


def test_another_regions_prices_are_not_used_in_silence() -> None:
    with pytest.raises(CostError, match="--region eu-west-1"):
        forecast(changed(account={"region": "eu-west-1"}), definition(), {})


def test_the_json_holds_the_totals_and_every_line() -> None:
    found = bill()
    said = forecast_json(found)
    assert said["usd"]["on_demand"] == pytest.approx(sum(entry["usd"]["on_demand"] for entry in said["steps"]))
    assert said["prices_date"] == load_prices().date.isoformat()


def test_the_forecast_needs_neither_the_sagemaker_sdk_nor_torch() -> None:
    code = (
        "import sys, pipeline_definition.cost.forecast, pipeline_definition.cost.plan;"
        "sys.exit(any(name in sys.modules for name in ('sagemaker', 'torch', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
