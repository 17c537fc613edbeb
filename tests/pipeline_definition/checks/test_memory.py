"""Does it fit? Preflight names the batch that a GPU has no room for, and the one that it has."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from params.families import FAMILIES, Family
from params.memory import denoiser_shape, state_bytes
from params.programs import TrainArguments
from params.settings import Settings, load_settings
from pipeline_definition.checks.findings import Finding
from pipeline_definition.checks.jobs import memory_findings
from pipeline_definition.jobs.instances import (
    even_sizes,
    gpu_types,
    instance,
    known_models,
    largest,
    model_of,
    training_bytes,
    usable_bytes,
)
from pipeline_definition.jobs.planned import Values, planned_jobs
from tests.pipeline_definition.cost.samples import changed, settings
from tests.pipeline_definition.definitions import PARAMETER_SETS, definition_of

SD2 = known_models()[0]
# stable-diffusion-2-base's unet/config.json, where it differs from diffusers' defaults, and a key that counts nothing.
SD2_CONFIG = {**SD2.denoiser, "sample_size": 64}


def findings_of(asked: Settings, unet: dict[str, Any] | None = None, **changes: str) -> dict[str, Finding]:
    definition = definition_of("octank_100gb")
    values = Values(definition, changes)
    findings = list(memory_findings(asked, planned_jobs(definition, values), values, unet))
    # The first one of a key: Tune comes before Train.
    return {one.parameter: one for one in reversed(findings)}


def test_a_micro_batch_that_does_not_fit_is_named_with_the_one_that_does() -> None:
    finding = findings_of(settings(), SD2_CONFIG, TuneInstanceType="ml.g5.12xlarge")["tune.micro_batch_size"]
    assert "Tune's micro-batch of 32 or 64 at 256 px takes about" in finding.problem
    assert "the A10G of ml.g5.12xlarge has" in finding.problem
    size = int(re.match(r"(\d+) is the largest that fits", finding.fix).group(1))  # type: ignore[union-attr]
    phase, gpu = settings().phases[0], instance("ml.g5.12xlarge").gpu
    assert gpu is not None
    ranks = 4
    assert (training_bytes(SD2, phase, gpu, ranks, size) or 0) <= usable_bytes(gpu)
    assert (training_bytes(SD2, phase, gpu, ranks, 2 * size) or 0) > usable_bytes(gpu)


def test_a_start_is_blocked_only_by_what_is_known_and_larger_than_the_gpu() -> None:
    small = {"TuneInstanceType": "ml.g5.12xlarge"}
    whole = changed(train={"shard_optimizer": False, "compile": False})
    assert findings_of(whole, SD2_CONFIG, **small)["tune.micro_batch_size"].blocking
    assert not findings_of(whole, None, **small)["tune.micro_batch_size"].blocking
    # Less than the whole GPU is told of.
    less = changed(train={"compile": False})
    assert not findings_of(less, SD2_CONFIG, **small)["tune.micro_batch_size"].blocking
    compiled = changed(train={"shard_optimizer": False, "compile": True})
    assert not findings_of(compiled, SD2_CONFIG, **small)["tune.micro_batch_size"].blocking


def test_a_setting_that_makes_room_is_named_and_does() -> None:
    finding = findings_of(changed(train={"shard_optimizer": False}), SD2_CONFIG)["tune.micro_batch_size"]
    assert "with train.shard_optimizer 64 does, too" in finding.fix
    assert not findings_of(changed(train={"shard_optimizer": True}), SD2_CONFIG)


def test_a_set_that_declares_another_family_than_the_folders_is_told_so() -> None:
    flow = next(model for model in known_models() if "_class_name" in model.denoiser)
    declared = changed(data={"model": flow.name})
    finding = findings_of(declared, SD2_CONFIG)["data.model"]
    assert finding.fix == "name the StableDiffusionPipeline of that folder" and not finding.blocking
    assert "data.model" not in findings_of(declared, flow.denoiser)
    # Without access to the folder, the set's word is taken.
    assert findings_of(declared, None, TuneInstanceType="ml.p4d.24xlarge")["tune.micro_batch_size"]


def test_encoders_are_checked_too() -> None:
    many = changed(encode={"batch_size": 4096})
    finding = findings_of(many, SD2_CONFIG)["encode.batch_size"]
    size = int(re.match(r"(\d+) is the largest that fits", finding.fix).group(1))  # type: ignore[union-attr]
    assert not findings_of(changed(encode={"batch_size": size}), SD2_CONFIG)
    assert findings_of(changed(encode={"batch_size": size + 1}), SD2_CONFIG)


def test_a_unet_that_was_never_reckoned_is_said_and_does_not_block() -> None:
    finding = findings_of(settings(), {"block_out_channels": [32, 64]})["PretrainedModel"]
    assert "python -m steps memory" in finding.fix
    assert not finding.blocking


@pytest.mark.parametrize("name", [name for name in PARAMETER_SETS if name != "local"])
def test_every_delivered_set_fits_its_hosts(name: str) -> None:
    asked, definition = load_settings(Path(f"params/{name}.yaml")), definition_of(name)
    values, model = Values(definition, {}), model_of(None, asked.data.model)
    assert model is not None
    assert list(memory_findings(asked, planned_jobs(definition, values), values, model.denoiser)) == []


@pytest.mark.parametrize("name", gpu_types())
def test_every_gpu_that_sagemaker_sells_has_its_count_and_memory_or_a_line_that_says_why_not(name: str) -> None:
    about = instance(name)
    assert about.unusable or (about.gpus > 0 and about.gpu is not None and about.gpu.memory_mib > 8192)


def test_the_published_arithmetic_of_the_state_holds() -> None:
    whole = TrainArguments()
    assert (
        state_bytes(SD2.denoiser_parameters, SD2.denoiser_matrix_parameters, whole, 8) == 20 * SD2.denoiser_parameters
    )
    divided = whole.model_copy(update={"shard_optimizer": True})
    assert (
        state_bytes(SD2.denoiser_parameters, SD2.denoiser_matrix_parameters, divided, 8)
        == (8 + 12 / 8) * SD2.denoiser_parameters
    )
    light = whole.model_copy(update={"ema_precision": "bfloat16"})
    assert (
        state_bytes(SD2.denoiser_parameters, SD2.denoiser_matrix_parameters, light, 1) == 18 * SD2.denoiser_parameters
    )
    # Muon keeps one moment of a matrix where AdamW keeps two.
    matrices = whole.model_copy(update={"optimizer": "muon"})
    saved = 4 * SD2.denoiser_matrix_parameters
    assert (
        state_bytes(SD2.denoiser_parameters, SD2.denoiser_matrix_parameters, matrices, 8)
        == 20 * SD2.denoiser_parameters - saved
    )
    # And that one on every rank.
    both = matrices.model_copy(update={"shard_optimizer": True})
    assert (
        state_bytes(SD2.denoiser_parameters, SD2.denoiser_matrix_parameters, both, 8)
        == (8 + 12 / 8) * SD2.denoiser_parameters + saved - 2 * saved / 8
    )


@given(size=st.integers(1, 512), side_px=st.sampled_from([256, 384, 512, 768]))
def test_more_samples_and_larger_pictures_take_more_and_sharding_and_checkpointing_less(
    size: int, side_px: int
) -> None:
    def peak(samples: int, px: int, **changes: bool) -> float:
        arguments = TrainArguments().model_copy(update=changes)
        return SD2.training_bytes(arguments, px, samples, 8, encodes_captions=True) or 0.0

    assert peak(size, side_px) < peak(size + 1, side_px) < peak(size + 1, side_px + 64)
    assert peak(size, side_px, shard_optimizer=True) < peak(size, side_px)
    assert peak(size, side_px, gradient_checkpointing=True) < peak(size, side_px)


def test_what_an_independent_count_of_kept_activations_gave_lies_within_a_tenth() -> None:
    """By torch's saved-tensor hooks: 1.24 GB an image at 512 px, 0.31 at 256 px, 44 images in 80 GB at 512 px."""

    def each_gb(px: int) -> float:
        peaks = [SD2.training_bytes(TrainArguments(), px, size, 1, encodes_captions=False) for size in (32, 64)]
        return ((peaks[1] or 0) - (peaks[0] or 0)) / 32e9

    assert each_gb(512) == pytest.approx(1.24, rel=0.1)
    assert each_gb(256) == pytest.approx(0.31, rel=0.1)
    room = 0.93 * 80e9 - 0.7e9
    fit = max(n for n in range(1, 99) if (SD2.training_bytes(TrainArguments(), 512, n, 1, False) or 0) <= room)
    assert fit == pytest.approx(44, abs=2)


def test_the_largest_size_divides_and_an_unknown_one_passes() -> None:
    gpu = instance("ml.p4d.24xlarge").gpu
    assert gpu is not None
    assert even_sizes(12) == [1, 2, 3, 4, 6, 12]
    assert largest([1, 2, 4], gpu, lambda size: 1e12 if size > 2 else 1.0) == 2
    assert largest([1, 2, 4], gpu, lambda _size: None) == 4
    assert largest([1, 2, 4], gpu, lambda _size: 1e12) == 0


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.network)
def test_a_denoiser_is_known_by_what_decides_its_memory_with_diffusers_own_defaults(family: Family) -> None:
    import diffusers

    signature = inspect.signature(getattr(diffusers, family.network).__init__).parameters
    for key, default in family.decisive.items():
        own = signature[key].default if key in signature else ""
        assert (list(own) if isinstance(own, tuple) else own) == default, key
    assert set(denoiser_shape({"_class_name": family.network})) <= {"_class_name"}


def test_a_transformer_is_not_taken_for_a_unet() -> None:
    assert denoiser_shape({"_class_name": "SD3Transformer2DModel", "num_layers": 24}) == {
        "_class_name": "SD3Transformer2DModel",
        "num_layers": 24,
    }


def test_stable_diffusion_2_is_known() -> None:
    assert denoiser_shape(SD2_CONFIG) == SD2.denoiser
    assert model_of(SD2_CONFIG, "") is SD2
    assert model_of({}, SD2.name) is None
    assert model_of(None, SD2.name) is SD2
    assert model_of(None, "sd4") is None
