"""The transformer: text from any of three encoders as diffusers makes it, trained, exported and drawn with."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from params.memory import ModelFigures, denoiser_shape
from params.programs import EvaluateArguments, ServeArguments, TrainArguments
from steps import export, memory
from steps.data.encoding.encoder import BlockEncoder
from steps.data.encoding.encoder_settings import EncoderSettings, model_facts
from steps.data.loading.latents import LatentsDataset
from steps.errors import StepError
from steps.evaluation.captions import Prompt
from steps.evaluation.generation import APPROVED, TRAINED, ModelSource, generate, plan
from steps.evaluation.generator import PictureGenerator, SamplingSettings
from steps.model.families import denoiser_of, load_pipeline
from steps.model.families.sd3 import Sd3, Sd3Reader
from steps.model.families.sd3_single_file import write_single_file
from steps.serving.pictures import PictureJob, Shape
from steps.serving.renderer import load_renderer
from steps.training.diffusion import RectifiedFlow
from steps.training.inputs import CaptionConditioning, InputMaker
from steps.training.objective import Objective
from steps.training.peak_memory import FakeNetwork
from steps.training.starting_weights import check_starting_weights
from tests.steps.training.conftest import MakeJob as MakeJob
from tests.steps.training.conftest import make_job as make_job
from tests.steps.training.jobs import Job
from tests.steps.training.tiny_model import write_latents, write_pretrained
from tests.steps.training.tiny_sd3 import CLIP_G, CLIP_L, CLIP_LENGTH, ID_COUNT, LATENT_SHAPE, T5_LENGTH, write_sd3

diffusers: Any = importlib.import_module("diffusers")
CPU = torch.device("cpu")
SD3 = Sd3()
PROMPTS = ["ab c", "", "a" * 30]
TRAINING = {"prediction_type": "flow", "training_samples": 48, "save_every_samples": 24, "validate_every_samples": 24}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sd3(tmp_path_factory.mktemp("sd3") / "pretrained")


@pytest.fixture(scope="module")
def latents(pretrained: Path) -> Path:
    folder = pretrained.with_name("latents")
    return write_latents(folder, pretrained, shape=LATENT_SHAPE, caption_length=ID_COUNT)


def plain(folder: Path, **parts: Any) -> Any:
    pipeline = diffusers.StableDiffusion3Pipeline.from_pretrained(folder, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def without(pretrained: Path, folder: Path, *parts: str) -> Path:
    shutil.copytree(pretrained, folder)
    for part in parts:
        shutil.rmtree(folder / part)
    return folder


def conditions(reader: Sd3Reader) -> tuple[torch.Tensor, ...]:
    return reader.encode(reader.tokens(PROMPTS))


def test_captions_are_encoded_as_diffusers_does(pretrained: Path) -> None:
    expected, _, expected_pooled, _ = plain(pretrained).encode_prompt(
        PROMPTS, None, None, max_sequence_length=T5_LENGTH, do_classifier_free_guidance=False
    )
    for reader in (SD3.reader(pretrained, ID_COUNT, torch.float32), SD3.reader_of(plain(pretrained))):
        states, pooled = conditions(reader)
        torch.testing.assert_close(states, expected)
        torch.testing.assert_close(pooled, expected_pooled)
        assert reader.positions == CLIP_LENGTH + T5_LENGTH == states.shape[1]
        assert [reader.cuts(text) for text in PROMPTS] == [False, False, True]


def test_a_tokenizer_without_its_encoder_keeps_its_place_and_is_told_as_zeros(pretrained: Path, tmp_path: Path) -> None:
    whole, whole_pooled = conditions(SD3.reader(pretrained, ID_COUNT, torch.float32))
    folder = without(pretrained, tmp_path / "a", "text_encoder", "text_encoder_3")
    states, pooled = conditions(SD3.reader(folder, ID_COUNT, torch.float32))
    clip_g = slice(CLIP_L, CLIP_L + CLIP_G)
    torch.testing.assert_close(states[:, :CLIP_LENGTH, clip_g], whole[:, :CLIP_LENGTH, clip_g])
    torch.testing.assert_close(pooled[:, clip_g], whole_pooled[:, clip_g])
    assert not states[:, :CLIP_LENGTH, :CLIP_L].any() and not states[:, CLIP_LENGTH:].any()
    assert not pooled[:, :CLIP_L].any()
    expected, _, _, _ = plain(pretrained, text_encoder_3=None, tokenizer_3=None).encode_prompt(
        PROMPTS, None, None, max_sequence_length=T5_LENGTH, do_classifier_free_guidance=False
    )
    no_t5 = without(pretrained, tmp_path / "b", "text_encoder_3")
    torch.testing.assert_close(conditions(SD3.reader(no_t5, ID_COUNT, torch.float32))[0], expected)


def test_without_a_tokenizer_there_is_no_place(pretrained: Path, tmp_path: Path) -> None:
    parts = ("text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
    folder = without(pretrained, tmp_path / "alone", *parts)
    reader = SD3.reader(folder, CLIP_LENGTH, torch.float32)
    assert conditions(reader)[0].shape[1] == reader.positions == CLIP_LENGTH
    assert list(SD3.contradictions(folder, folder)) == []
    with pytest.raises(StepError, match="its tokenizers give 6 token ids, the latents have 22"):
        SD3.reader(folder, ID_COUNT, torch.float32)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("transformer", {"joint_attention_dim": 30}, "joint_attention_dim is 30, and text_encoder_3 is 24 wide"),
        ("text_encoder_2", {"projection_dim": 16}, "pooled_projection_dim 20, and the CLIP .* project to 24"),
        ("text_encoder", {"hidden_size": 10}, "hidden_size and projection_dim differ: it cannot be CLIP-L"),
    ],
)
def test_parts_of_different_models_are_refused(
    pretrained: Path, tmp_path: Path, part: str, changes: dict[str, Any], message: str
) -> None:
    folder = without(pretrained, tmp_path / "other")
    file = folder / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(StepError, match=message):
        check_starting_weights(TrainArguments(prediction_type="flow"), folder, folder)


def test_what_cannot_be_trained_is_refused(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(
        StepError, match="prediction_type is epsilon: a StableDiffusion3Pipeline is trained to predict flow"
    ):
        check_starting_weights(TrainArguments(), pretrained, pretrained)
    with pytest.raises(StepError, match=r"train\.lora_text_encoder: a StableDiffusion3Pipeline learns without"):
        lora = TrainArguments(prediction_type="flow", lora_rank=4, lora_text_encoder=True, initial_weights="pretrained")
        check_starting_weights(lora, pretrained, pretrained)
    textless = without(pretrained, tmp_path / "textless", "text_encoder", "text_encoder_2", "text_encoder_3")
    with pytest.raises(StepError, match="no text encoder: one of text_encoder, text_encoder_2, text_encoder_3"):
        check_starting_weights(TrainArguments(prediction_type="flow"), textless, textless)
    config = SD3.config(pretrained)
    assert list(SD3.misfits(config, [(16, 4, 8), (16, 12, 12)])) == []
    assert "in_channels 16, but the latents have 4" in list(SD3.misfits(config, [(4, 4, 4)]))
    assert "patches of 2 x 2; change encode" in next(SD3.misfits(config, [(16, 3, 4)]))
    assert "more than 6 patches (pos_embed_max_size) at a side" in next(SD3.misfits(config, [(16, 4, 14)]))


def test_flops_of_the_published_model_are_those_of_its_products() -> None:
    # stable-diffusion-3-medium's transformer/config.json, where it differs from the class's defaults.
    medium = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192}
    positions, patches, width = 77 + 256, 32 * 32, 1536
    flops = SD3.flops_of_sample(medium, (16, 64, 64), positions)
    # Of each of the 24 blocks: 12 matrices of width x width for either kind of token, and attention among all of them.
    products = 24 * (2 * 12 * width**2 * (patches + positions) + 4 * width * (patches + positions) ** 2)
    assert flops == pytest.approx(3 * products, rel=0.05)


def job_of(make_job: MakeJob, name: str, pretrained: Path, latents: Path, **settings: Any) -> Job:
    job = make_job(name, **TRAINING, **settings)
    for channel, source in (("pretrained", pretrained), ("latents", latents)):
        link = job.base / "input" / "data" / channel
        link.unlink()
        link.symlink_to(source)
    return job


def weights_of(job: Job) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(job.model_dir / "transformer" / "diffusion_pytorch_model.safetensors")
    return weights


def test_train_export_draw_in_plain_diffusers(
    make_job: MakeJob, pretrained: Path, latents: Path, tmp_path: Path
) -> None:
    job = job_of(make_job, "sd3", pretrained, latents)
    job.run()
    assert {tensor.dtype for tensor in weights_of(job).values()} == {torch.float32}
    assert job.lineage()["initial_transformer"] == SD3.config(pretrained)
    assert job.log()[-1]["seen_samples"] == 48 and np.isfinite(job.log()[-1]["validation_loss"])
    pipeline = plain(job.model_dir)
    assert (type(pipeline.scheduler).__name__, pipeline.scheduler.config.shift) == (
        "FlowMatchEulerDiscreteScheduler",
        1.0,
    )
    by_hand = pipeline(
        ["ab c", "d"],
        generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)],
        guidance_scale=3.0,
        num_inference_steps=4,
        max_sequence_length=T5_LENGTH,
        output_type="np",
    ).images
    prompts = [Prompt(0, "ab c", 3, None), Prompt(1, "d", 4, None)]
    ours = PictureGenerator(load_pipeline(job.model_dir, torch.float32), SamplingSettings(3.0, 4, "euler", 8, 8), CPU)
    drawn = ours.draw(prompts)
    assert np.abs(drawn - by_hand * 255.0).max() <= 1 and drawn.std() > 1
    served = load_renderer(job.model_dir, ServeArguments(precision="float32", default_size_px=8, max_size_px=8))
    picture = served.render(Shape(8, 8, 4, 3.0, "euler"), [PictureJob("ab c", "", 3)], lambda: False)[0]
    assert np.abs(drawn[0].astype(int) - np.asarray(picture.image)).max() <= 1


def test_a_broken_training_on_buckets_ends_as_an_unbroken_one(
    make_job: MakeJob, pretrained: Path, tmp_path: Path
) -> None:
    buckets = [(16, 4, 4), (16, 2, 8), (16, 8, 2)]
    folder = write_latents(
        tmp_path / "latents", pretrained, train=24, shape=LATENT_SHAPE, buckets=buckets, caption_length=ID_COUNT
    )
    whole, broken = (job_of(make_job, name, pretrained, folder) for name in ("whole", "broken"))
    whole.run()
    for length in (24, 48):
        broken.settings["training_samples"] = length
        broken.write(pretrained, folder).run()
    expected, found = weights_of(whole), weights_of(broken)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert LatentsDataset(folder).manifest.latent_shapes == tuple(buckets)


def test_two_ranks_that_divide_the_optimizer_end_as_one(make_job: MakeJob, pretrained: Path, latents: Path) -> None:
    settings = {"precision": "float64", "encoder_dropout": 0.4, "micro_batch_size": 2}
    one = job_of(make_job, "one", pretrained, latents, **settings)
    two = job_of(make_job, "two", pretrained, latents, **settings, shard_optimizer=True)
    one.run()
    two.run(ranks=2)
    expected, found = weights_of(one), weights_of(two)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-12)


def test_memory_is_reckoned_by_fake_tensors(pretrained: Path) -> None:
    network = FakeNetwork(SD3, SD3.config(pretrained), "bfloat16", gradient_checkpointing=True)
    small, large = (network.pass_bytes(size, LATENT_SHAPE, CLIP_LENGTH + T5_LENGTH) for size in (2, 4))
    assert 0 < small < large < 2.5 * small


def test_the_figures_of_a_transformer_are_written_beside_those_of_others(pretrained: Path, tmp_path: Path) -> None:
    file = tmp_path / "memory.yaml"
    flags = ["--resolutions-px", "16", "--micro-batch-sizes", "1,2", "--precisions", "float32", "--name", "tiny"]
    assert memory.main([*flags, "--pretrained-dir", str(pretrained), "--figures-file", str(file)]) == 0
    model = ModelFigures.model_validate(yaml.safe_load(file.read_text())[0])
    assert model.denoiser == denoiser_shape(SD3.config(pretrained))
    assert model.denoiser_parameters == sum(one.numel() for one in SD3.new(pretrained, 0).parameters())
    encoders = SD3.reader(pretrained, ID_COUNT, torch.float32)._encoders.values()
    assert model.text_encoder_parameters == sum(one.numel() for of in encoders for one in of.parameters())


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_seed_means_one_picture_whatever_the_batch(pretrained: Path, guidance: float) -> None:
    arguments = ServeArguments(precision="float32", default_size_px=8, max_size_px=24, exact_batches=True)
    renderer = load_renderer(pretrained, arguments)
    assert renderer.warm_up().deviation == 0.0 and renderer.max_batch_size == 8
    jobs = [PictureJob("ab", "", 3), PictureJob("c d", "e", 4), PictureJob("z" * 30, "", 5)]
    for sampler, height in (("euler", 8), ("dpm++", 12)):
        shape = Shape(8, height, 3, guidance, sampler)
        assert renderer.refusal(shape) == ""
        together = renderer.render(shape, jobs, lambda: False)
        apart = [renderer.render(shape, [job], lambda: False)[0] for job in jobs]
        assert [one.image.tobytes() for one in together] == [one.image.tobytes() for one in apart]
        assert [one.truncated for one in together] == [False, False, True]
    assert "ddim cannot draw with a model that predicts flow: set euler or dpm" in renderer.refusal(
        Shape(8, 8, 3, 3, "ddim")
    )
    assert "patches" in renderer.refusal(Shape(10, 8, 3, 3.0, "euler"))


def test_what_needs_weights_or_parts_is_refused_and_all_else_is_drawn_as_ever(pretrained: Path) -> None:
    renderer = load_renderer(pretrained, ServeArguments(precision="float32", default_size_px=8, max_size_px=24))
    plain, asked = (Shape(8, 8, 2, 3.0, "euler", long_prompts=long) for long in (False, True))
    for text in ("(a)", "a BREAK b", "z" * 30):
        assert "a StableDiffusion3Pipeline reads neither weights nor more" in renderer.refusal(asked, ("a", text))
        assert renderer.refusal(plain, ("a", text)) == ""
    assert renderer.refusal(asked, ("ab", "")) == ""
    (one,), (two,) = (renderer.render(shape, [PictureJob("ab", "", 3)], lambda: False) for shape in (plain, asked))
    assert one.image.tobytes() == two.image.tobytes()


LORA = {
    **{"initial_weights": "pretrained", "lora_rank": 2, "lora_alpha": 3, "learning_rate": 0.05},
    "lora_targets": "to_q,to_out.0,add_k_proj,to_add_out",
}


def test_a_lora_learns_beside_the_network_and_is_drawn_with_as_diffusers_does(
    make_job: MakeJob, pretrained: Path, latents: Path, tmp_path: Path
) -> None:
    job, merged = (
        job_of(make_job, name, pretrained, latents, **LORA, lora_output=name) for name in ("separate", "merged")
    )
    job.run()
    merged.run()
    before = load_file(pretrained / "transformer" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(job).items())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in weights_of(merged).items())
    arguments = ServeArguments(precision="float32", default_size_px=8, max_size_px=8, exact_batches=True)
    renderer, whole = load_renderer(job.model_dir, arguments), load_renderer(merged.model_dir, arguments)
    assert renderer.adapters == ("lora",) and renderer.warm_up().deviation == 0.0 and renderer.max_batch_size == 8
    jobs = [PictureJob(text, "", seed) for seed, text in enumerate(("ab", "c d"))]
    base, shape = Shape(8, 8, 3, 3.0, "euler"), Shape(8, 8, 3, 3.0, "euler", "lora", 1.0)
    together = [np.asarray(one.image) for one in renderer.render(shape, jobs, lambda: False)]
    apart = [np.asarray(renderer.render(shape, [one], lambda: False)[0].image) for one in jobs]
    assert all(map(np.array_equal, together, apart))
    without_it, merged_in = (np.asarray(of.render(base, jobs[:1], lambda: False)[0].image) for of in (renderer, whole))
    assert np.abs(together[0].astype(int) - merged_in).max() <= 1 < np.abs(together[0].astype(int) - without_it).max()
    pipeline = plain(job.model_dir)
    pipeline.load_lora_weights(job.model_dir / "adapters" / "lora")
    by_hand = pipeline(
        "ab",
        **{"generator": torch.Generator().manual_seed(0), "guidance_scale": 3.0, "num_inference_steps": 3},
        **{"max_sequence_length": T5_LENGTH, "output_type": "np"},
    ).images
    assert np.abs(together[0] - by_hand[0] * 255.0).max() <= 1
    flags = ["--model", str(job.model_dir), "--out", str(tmp_path / "out"), "--lora-kohya", str(tmp_path / "k")]
    with pytest.raises(StepError, match="lora_kohya: of a transformer none is written"):
        export.main(flags)


def test_an_evaluation_compares_it_with_a_unet(pretrained: Path, tmp_path: Path) -> None:
    unet = write_pretrained(tmp_path / "unet")
    sources = {TRAINED: ModelSource(pretrained, "a"), APPROVED: ModelSource(unet, "b")}
    few = dict.fromkeys(("samples", "batch_size", "inference_steps", "untrained_samples", "comparison_samples"), 2)
    arguments = EvaluateArguments(**few, sampler="dpm++", precision="float32", guidance_grid=())
    prompts = [Prompt(0, "ab c", 3, None), Prompt(1, "d", 4, None)]
    work = plan(arguments, sources, prompts, "", 8, (tmp_path / "samples", tmp_path / "others"))
    generate(work, ["cpu"])
    assert [row.name for row in work.rows] == ["trained", "untrained", "approved"]
    assert not any(row.store().missing(row.indices) for row in work.rows)


def test_a_folder_is_of_the_family_that_its_index_names(pretrained: Path, tmp_path: Path) -> None:
    assert denoiser_of(pretrained).family is SD3.family
    folder = without(pretrained, tmp_path / "xl")
    index = json.loads((folder / "model_index.json").read_text()) | {"_class_name": "StableDiffusionXLPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(
        StepError, match=r"says StableDiffusionXLPipeline: only a StableDiffusionPipeline or Stable.* known"
    ):
        denoiser_of(folder)


def test_encoders_are_left_out_one_by_one_and_change_no_other_draw(pretrained: Path, latents: Path) -> None:
    captions = CaptionConditioning(SD3.reader(pretrained, ID_COUNT, torch.float32), False, CPU)
    rows = np.arange(40, dtype=np.int64)
    read = LatentsDataset(latents).read("train", rows)
    all_kept, some_kept = (
        InputMaker(0, 0.1, 0.0, RectifiedFlow(1.0), captions, CPU, dropout).training(read, torch.from_numpy(rows))
        for dropout in (0.0, 0.5)
    )
    assert all_kept.kept.all() and all_kept.kept.shape == (40, 3)
    assert (some_kept.kept.float().mean(0) > 0.2).all() and (some_kept.kept.float().mean(0) < 0.8).all()
    for name in ("timesteps", "noise", "posterior", "captions"):
        assert torch.equal(getattr(all_kept, name), getattr(some_kept, name)), name
    whole, whole_pooled = captions.encode(all_kept.captions)
    states, pooled = captions.encode(some_kept.captions, some_kept.kept)
    clip_l, clip_g, t5 = some_kept.kept.T
    assert torch.equal(states[:, CLIP_LENGTH:], whole[:, CLIP_LENGTH:] * t5[:, None, None])
    assert torch.equal(pooled[:, :CLIP_L], whole_pooled[:, :CLIP_L] * clip_l[:, None])
    assert torch.equal(pooled[:, CLIP_L:], whole_pooled[:, CLIP_L:] * clip_g[:, None])
    with pytest.raises(StepError, match="encoder_dropout: a StableDiffusionPipeline has one text encoder"):
        folder = write_pretrained(pretrained.with_name("unet"))
        check_starting_weights(TrainArguments(encoder_dropout=0.4), folder, folder)


def test_an_endpoint_draws_without_an_encoder_as_diffusers_does(pretrained: Path) -> None:
    arguments = ServeArguments(precision="float32", default_size_px=8, max_size_px=8, sampler="euler")
    served = load_renderer(pretrained, arguments.model_copy(update={"without_encoders": ("text_encoder_3",)}))
    picture = served.render(Shape(8, 8, 3, 3.0, "euler"), [PictureJob("ab", "", 3)], lambda: False)[0]
    by_hand = plain(pretrained, text_encoder_3=None)(
        "ab",
        generator=torch.Generator().manual_seed(3),
        guidance_scale=3.0,
        num_inference_steps=3,
        max_sequence_length=T5_LENGTH,
        output_type="np",
    ).images
    assert np.abs(np.asarray(picture.image) - by_hand[0] * 255.0).max() <= 1


@pytest.mark.parametrize("lacking", [(), ("text_encoder_3", "tokenizer_3"), ("text_encoder", "tokenizer")])
def test_a_copy_for_elsewhere_and_its_single_file_draw_the_same(
    pretrained: Path, tmp_path: Path, lacking: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out, file = without(pretrained, tmp_path / "model", *lacking), tmp_path / "out", tmp_path / "b.safetensors"
    assert export.main(["--model", str(folder), "--out", str(out), "--single-file", str(file)]) == 0
    said = capsys.readouterr().out
    assert "b.safetensors draws the model's picture" in said and "has not Stable Diffusion 3's shape" in said
    assert not any((out / part).exists() for part in lacking)
    # Every weight once, under a name that the published files have.
    written = load_file(file)
    assert "model.diffusion_model.joint_blocks.1.context_block.attn.qkv.weight" in written
    assert not any("transformer_blocks" in name for name in written)
    half = ["--model", str(folder), "--out", str(tmp_path / "half"), "--half", "true"]
    assert export.main(half) == 0
    kept = load_file(tmp_path / "half" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float16}


def test_clips_of_one_width_have_no_single_file(pretrained: Path, tmp_path: Path) -> None:
    folder = without(pretrained, tmp_path / "model", "text_encoder_2")
    shutil.copytree(folder / "text_encoder", folder / "text_encoder_2")
    with pytest.raises(StepError, match="text_encoder and text_encoder_2 are both 8 wide: readers tell them apart"):
        write_single_file(folder, tmp_path / "b.safetensors", "")


def test_encode_stores_the_ids_of_every_tokenizer_and_knows_the_shift(pretrained: Path) -> None:
    facts = model_facts(pretrained)
    assert (facts.caption_length, facts.latent_channels, facts.shift_factor) == (ID_COUNT, 16, 0.06)
    assert facts.identity()["shift_factor"] == 0.06
    encoder = BlockEncoder(EncoderSettings(pretrained, 2, ID_COUNT, False, "float32"))
    tensors = encoder.encode(np.zeros((3, 8, 8, 3), np.uint8), PROMPTS)
    expected = SD3.reader(pretrained, ID_COUNT, None).tokens(PROMPTS)
    assert np.array_equal(tensors["token_ids"], expected.numpy()) and tensors["mean"].shape == (3, *LATENT_SHAPE)


def test_latents_are_shifted_before_they_are_scaled(pretrained: Path, latents: Path) -> None:
    captions = CaptionConditioning(SD3.reader(pretrained, ID_COUNT, torch.float64), False, CPU)
    process, rows = RectifiedFlow(1.0, dtype=torch.float64), np.arange(4, dtype=np.int64)
    read = LatentsDataset(latents).read("train", rows)
    inputs = InputMaker(0, 0.0, 0.0, process, captions, CPU).training(read, torch.from_numpy(rows))
    clean = (inputs.mean.double() + inputs.std.double() * inputs.posterior.double() - 0.06) * 1.5

    def knowing(hidden_states: torch.Tensor, timestep: torch.Tensor, **named: Any) -> Any:
        return ((hidden_states - clean) / (timestep.double() / 1000)[:, None, None, None],)

    objective = Objective(SD3, process, captions, 1.5, "float64", CPU, shift_factor=0.06)
    assert float(objective.losses(knowing, inputs).max()) < 1e-12
