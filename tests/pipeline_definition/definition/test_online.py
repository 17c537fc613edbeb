"""One training job with two instance groups: what the definition, preflight, the forecast and the report say of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from params.layout import ONLINE_METRICS
from params.settings import Settings, load_settings, parse_settings
from pipeline_definition.artifacts import Artifacts
from pipeline_definition.checks.budget import other_steps_usd
from pipeline_definition.checks.preflight import preflight
from pipeline_definition.cost.forecast import forecast
from pipeline_definition.cost.host_hours import training_price_usd
from pipeline_definition.cost.prices import load_prices
from pipeline_definition.definition.pipeline import build_definition
from pipeline_definition.jobs.planned import Values, planned_jobs
from pipeline_definition.report.page import render
from pipeline_definition.report.run import run_of
from tests.pipeline_definition.definitions import all_steps, definition_of
from tests.pipeline_definition.report import example_runs

NAME = "sd2_heterogeneous"


def settings() -> Settings:
    return load_settings(Path(f"params/{NAME}.yaml"))


def train() -> dict[str, Any]:
    found: dict[str, Any] = all_steps(definition_of(NAME))["Train"]["Arguments"]
    return found


def test_trainers_and_encoders_are_groups_whose_hosts_an_operator_sets() -> None:
    groups = train()["ResourceConfig"]["InstanceGroups"]
    assert [group["InstanceGroupName"] for group in groups] == ["trainers", "encoders"]
    assert [group["InstanceCount"] for group in groups] == [
        {"Get": "Parameters.TrainingInstanceCount"},
        {"Get": "Parameters.EncodersInstanceCount"},
    ]
    assert not {"InstanceType", "InstanceCount", "KeepAlivePeriodInSeconds"} & set(train()["ResourceConfig"])


def test_each_group_gets_the_channels_that_it_needs() -> None:
    sources = {item["ChannelName"]: item["DataSource"]["S3DataSource"] for item in train()["InputDataConfig"]}
    groups = {name: source["InstanceGroupNames"] for name, source in sources.items()}
    assert groups == {"latents": ["trainers"], "pretrained": ["trainers", "encoders"]}


def test_train_is_told_where_the_pictures_are_and_a_trial_is_not() -> None:
    assert "shards" in json.dumps(train()["HyperParameters"]["shards_uri"])
    trial = all_steps(definition_of(NAME))["Tune"]["Arguments"]["TrainingJobDefinition"]
    assert "shards_uri" not in trial["StaticHyperParameters"]
    assert "InstanceGroups" not in trial["ResourceConfig"]


def test_the_log_tells_sagemaker_which_side_waited() -> None:
    names = {metric["Name"] for metric in train()["AlgorithmSpecification"]["MetricDefinitions"]}
    assert names >= set(ONLINE_METRICS)
    assert len(names) <= 40


def test_the_cache_key_knows_both_groups_hosts() -> None:
    assert set(train()["Environment"]) == {"TRAINING_INSTANCE_COUNT", "ENCODERS_INSTANCE_COUNT"}


def test_without_the_section_there_is_one_group() -> None:
    assert "InstanceGroups" not in json.dumps(definition_of("octank_100gb"))
    assert "Encoders" not in json.dumps(definition_of("octank_100gb"))


def test_on_a_file_system_no_channel_is_assigned_to_a_group() -> None:
    text = "encoders: {}\nencode: {max_train_rows: 4096}"
    definition = json.loads(build_definition(parse_settings(text, "x.yaml")))
    found = all_steps(definition)["Train"]["Arguments"]
    assert "InstanceGroups" in found["ResourceConfig"]
    assert "InstanceGroupNames" not in json.dumps(found["InputDataConfig"])


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("EncodersInstanceType", "ml.c6i.4xlarge", "no NVIDIA GPU"),
        ("EncodersInstanceType", "ml.g5.12xlage", "SageMaker has no"),
        ("EncodersInstanceCount", "0", "0 hosts"),
        ("TrainingInstanceCount", "3", "does not divide"),
    ],
)
def test_preflight_checks_both_groups(name: str, value: str, problem: str) -> None:
    found = preflight(settings(), definition_of(NAME), {name: value})
    assert any(finding.parameter == name and problem in finding.problem for finding in found), found


def test_encoders_are_a_job_beside_the_training() -> None:
    definition = definition_of(NAME)
    jobs = [job for job in planned_jobs(definition, Values(definition, {})) if job.step == "Train"]
    assert [(job.program, job.instance.name, job.count) for job in jobs] == [
        ("train", "ml.p4de.24xlarge", 4),
        ("stream", "ml.g5.12xlarge", 12),
    ]


def hours_and_dollars(**parameters: str) -> tuple[float, float, float]:
    """Return the hours of Train and the dollars of its two groups."""
    lines = {line.step: line for line in forecast(settings(), definition_of(NAME), parameters).lines}
    dollars = [lines[name].usd["on_demand"] for name in ("Train", "Train encoders")]
    return lines["Train"].hours, dollars[0] or 0.0, dollars[1] or 0.0


def test_the_slower_side_decides_how_long_both_are_paid_for() -> None:
    hours, trainers_usd, encoders_usd = hours_and_dollars()
    half = hours_and_dollars(EncodersInstanceCount="6")
    assert half[0] == pytest.approx(2 * hours, rel=0.1)
    assert half[2] == pytest.approx(encoders_usd, rel=0.1)
    more = hours_and_dollars(EncodersInstanceCount="24")
    assert more[0] < hours
    assert more[2] > 1.5 * encoders_usd
    prices = load_prices()
    assert trainers_usd == pytest.approx(4 * hours * prices.instance_hour_usd("ml.p4de.24xlarge"))
    assert encoders_usd == pytest.approx(12 * hours * prices.instance_hour_usd("ml.g5.12xlarge"))


def test_only_what_encode_makes_is_stored() -> None:
    workload = forecast(settings(), definition_of(NAME), {}).workload
    assert workload.latents_bytes == (2_048_000 + 30_000) * (16_384 + 154)


def test_a_budget_counts_the_encoders_as_trains_own() -> None:
    prices = load_prices()
    price = training_price_usd(settings(), settings().phases[0])
    encoders_usd = 12 * prices.instance_hour_usd("ml.g5.12xlarge")
    assert price == pytest.approx(prices.instance_hour_usd("ml.p4de.24xlarge") + encoders_usd / 4)
    bill = forecast(settings(), definition_of(NAME), {})
    own = sum(line.usd["on_demand"] or 0.0 for line in bill.lines if line.step in ("Train", "Train encoders"))
    others = other_steps_usd(bill, "on_demand", settings().phases[0])
    assert others == pytest.approx(bill.usd("on_demand") - own)


@pytest.mark.parametrize(("waited_s", "words"), [(0.0, "the encoders were slower"), (9.0, "the trainers were slower")])
def test_the_report_says_which_side_waited(tmp_path: Path, waited_s: float, words: str) -> None:
    folder = example_runs.full_run(tmp_path)
    entries = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    text = "".join(
        json.dumps({**entry, "encoder_wait_s": waited_s} if "data_s" in entry else entry) + "\n" for entry in entries
    )
    (folder / "training_log.jsonl").write_text(text)
    assert words in render(run_of(Artifacts.load(folder), {}))
    assert "an encoder waited" not in render(run_of(Artifacts.load(example_runs.full_run(tmp_path / "offline")), {}))


@pytest.mark.parametrize(("epochs", "online_is_cheaper"), [(1, True), (2, False)])
def test_online_is_cheaper_for_one_epoch_and_offline_for_two(epochs: int, online_is_cheaper: bool) -> None:
    """As docs/online_encoding.md says."""
    samples = epochs * 1_130_000_000 // 4096 * 4096
    online = settings().model_copy(update={"train": settings().train.model_copy(update={"training_samples": samples})})
    every = {"max_train_rows": 0, "job": settings().encode.job.model_copy(update={"instance_count": 12})}
    offline = online.model_copy(
        update={
            "encoders": None,
            "encode": settings().encode.model_copy(update=every),
            "file_system": settings().file_system.model_copy(update={"kind": "fsx"}),
        }
    )
    dollars = [forecast(made, json.loads(build_definition(made)), {}).usd("on_demand") for made in (online, offline)]
    assert (dollars[0] < dollars[1]) is online_is_cheaper
