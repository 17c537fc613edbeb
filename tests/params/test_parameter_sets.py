"""The delivered parameter sets: what they say in comments holds, and the arithmetic of a start comes out."""

import json
from pathlib import Path

import pytest
import yaml

from params.settings import Settings, load_settings
from pipeline_definition.checks.preflight import preflight
from pipeline_definition.cost.host_hours import priced
from pipeline_definition.definition.pipeline import build_definition
from pipeline_definition.infrastructure.stack import fill
from pipeline_definition.jobs.instances import instance, known_types
from tests.pipeline_definition.definitions import definition_of

REAL_SETS = ("octank_100gb", "sd2_base", "sd2_heterogeneous", "sd3_budget")
ALL_SETS = (*REAL_SETS, "sd3_budget_smoke", "finetune_own", "local", "local_flow", "local_lora")
STACK = {
    "BucketName": "sd-pipeline-123456789012-us-east-1",
    "RoleArn": "arn:aws:iam::123456789012:role/execution",
    "Subnets": "subnet-0123456789abcdef0",
    "SecurityGroups": "sg-0123456789abcdef0",
    "FileSystemId": "fs-0123456789abcdef0",
    "FileSystemPath": "/abcdefgh/latents",
    "DataRepositoryUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd-pipeline-data",
    "TrainingRepositoryUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd-pipeline-training",
    "InferenceRepositoryUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/sd-pipeline-inference",
    "ModelPackageGroupName": "sd-pipeline",
}
LATENT_BYTES = 2 * 2 * 4 * 32 * 32 + 154  # mean and std in fp16, token ids


def settings_of(name: str) -> Settings:
    return load_settings(Path("params") / f"{name}.yaml")


def values_of(name: str) -> dict[str, object]:
    values: dict[str, object] = yaml.safe_load((Path("params") / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


@pytest.mark.parametrize("name", [*REAL_SETS, "sd3_budget_smoke", "finetune_own"])
def test_a_real_set_on_a_stack_of_ones_own_has_nothing_in_its_way(name: str) -> None:
    settings = fill(settings_of(name), STACK)
    assert preflight(settings, json.loads(build_definition(settings)), {}) == []


@pytest.mark.parametrize("name", ["local", "local_flow", "local_lora"])
def test_a_local_set_has_nothing_in_its_way(name: str) -> None:
    assert preflight(settings_of(name), definition_of(name), {}) == []


def test_fine_tuning_starts_from_the_pretrained_unet_on_one_gpu_and_is_gated_against_it() -> None:
    settings = settings_of("finetune_own")
    job = settings.train.job
    assert settings.train.initial_weights == "pretrained" and settings.train.spot
    assert job.instance_count * instance(job.instance_type).gpus == 1
    assert settings.gate.compares_with_pretrained and settings.evaluate.require_pretrained
    assert settings.data.rows * settings.encode.heldout_fraction >= settings.evaluate.samples


@pytest.mark.parametrize("name", ALL_SETS)
def test_a_set_holds_only_what_differs_from_the_defaults(name: str) -> None:
    repeated = list(_repeated(values_of(name), Settings().model_dump(mode="json"), ""))
    assert repeated == []


@pytest.mark.parametrize("name", REAL_SETS)
def test_a_set_says_where_its_numbers_come_from(name: str) -> None:
    text = (Path("params") / f"{name}.yaml").read_text(encoding="utf-8")
    assert any(source in text for source in ("img2dataset", "MosaicML", "Anyscale"))


@pytest.mark.parametrize("name", REAL_SETS)
def test_tune_runs_on_trains_own_kind_of_gpu(name: str) -> None:
    settings = settings_of(name)
    assert instance(settings.tune.job.instance_type).gpu == instance(settings.train.job.instance_type).gpu


@pytest.mark.parametrize("name", REAL_SETS)
def test_no_folder_of_latents_has_more_files_than_lustre_likes(name: str) -> None:
    settings = settings_of(name)
    every = 3_300_000 if name == "octank_100gb" else settings.train.training_samples
    samples = settings.encode.max_train_rows or every
    assert samples / settings.encode.rows_per_shard < 100_000
    assert settings.encode.rows_per_shard * LATENT_BYTES < 2**30  # a shard lies on one server


@pytest.mark.parametrize("name", REAL_SETS)
def test_the_instance_types_exist_for_their_jobs(name: str) -> None:
    settings = settings_of(name)
    for job in (settings.train.job, settings.tune.job):
        assert job.instance_type in known_types("training")
    for job in (settings.download.job, settings.encode.job, settings.evaluate.job):
        assert job.instance_type in known_types("processing")
    assert settings.endpoint.job.instance_type in known_types("endpoint")


@pytest.mark.parametrize(("name", "steps"), [("sd2_base", 550_000), ("sd2_heterogeneous", 275_000)])
def test_the_first_phase_of_stable_diffusion_2_is_as_published(name: str, steps: int) -> None:
    train = settings_of(name).train
    assert train.training_samples == 1_126_400_000
    assert train.training_samples / train.global_batch_size == steps


def test_the_sample_of_100_gb_trains_on_one_node() -> None:
    settings = settings_of("octank_100gb")
    assert settings.train.job.instance_count == 1
    assert settings.tune.job.instance_count * settings.tune.parallel_trials == 1


def test_two_gpu_counts_differ_in_the_count_alone() -> None:
    settings = settings_of("octank_100gb")
    job = settings.train.job.model_copy(update={"instance_count": 2})
    more = settings.model_copy(update={"train": settings.train.model_copy(update={"job": job})})
    one = json.dumps(definition_of("octank_100gb"), indent=1).splitlines()
    two = json.dumps(json.loads(build_definition(priced(more))), indent=1).splitlines()
    changed = [(a.strip(), b.strip()) for a, b in zip(one, two, strict=True) if a != b]
    assert changed == [('"DefaultValue": 1,', '"DefaultValue": 2,')]


def _repeated(values: dict[str, object], defaults: dict[str, object], prefix: str) -> list[str]:
    found: list[str] = []
    for key, value in values.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, dict):
            # A job and a range are given whole.
            found += [] if key == "job" or "low" in default else _repeated(value, default, f"{prefix}{key}.")
        elif value == default:
            found.append(prefix + key)
    return found


def test_stable_diffusion_2_learns_from_what_its_card_says() -> None:
    """stable-diffusion-2-base: punsafe 0.1, aesthetic score 4.5, and 512 px of pictures of 512 px and more."""
    settings = settings_of("sd2_base")
    download = settings.download.model_dump()
    assert (download["max_unsafe"], download["min_aesthetic_score"]) == (0.1, 4.5)
    first, second = settings.phases
    # Phase 1 has all that is 256 px, also what is stored larger than it came; phase 2 nothing that was blown up.
    assert download["upscale"] and download["min_image_size_px"] == first.encode.smallest_original_px == 256
    assert download["image_size_px"] == second.encode.smallest_original_px == 512
