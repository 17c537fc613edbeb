"""The settings of training: of a trial, of the training job, and of the throughput that it could have."""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from params.model import Decides, Model, added

# A folder's name and, to peft, a key without dots.
ADAPTER_NAME: Final = r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$"


class TrainArguments(Model):
    """`python -m steps train`: latents to a trained model. Tuning trials and the training job run the same program."""

    training_samples: int = Field(1_126_400_000, ge=1)
    """How many samples to train on (phase 1 of Stable Diffusion 2: 550,000 steps of 2,048). [extent]"""
    global_batch_size: int = Field(2048, ge=1)
    """Samples for one optimizer step, over all ranks (Stable Diffusion 2: 2,048). [content]"""
    micro_batch_size: int = Field(128, ge=1)
    """Samples on one device at once. Global batch / (micro-batch x ranks) is the gradient accumulation. [running]"""
    optimizer: Literal["adamw", "muon"] = added("adamw")
    """`muon`: torch's Muon (Jordan et al. 2024) for the matrices inside the blocks, AdamW for the rest. Its steps are
    scaled to AdamW's (arXiv:2502.16982), so that learning_rate and weight_decay serve both. [content]"""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate (Stable Diffusion 2: 1e-4). [content]"""
    learning_rate_batch_size: int = Field(0, ge=0)
    """The global batch for which learning_rate was found, such as Tune's. AdamW's rate grows with the square root of
    the batch (Malladi et al. 2022, arXiv:2205.10287): the peak is learning_rate x sqrt(global_batch_size / this). 0: it
    was found for global_batch_size itself. [content]"""
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up (Stable Diffusion 2: constant). [content]"""
    warmup_samples: int = Field(20_480_000, ge=0)
    """Linear warm-up (Stable Diffusion 2: 10,000 steps of 2,048). [content]"""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay (Stable Diffusion 2: 0.01). [content]"""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's first moment (torch's default). [content]"""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """AdamW's second moment (torch's default). [content]"""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm. [content]"""
    prediction_type: Literal["epsilon", "v_prediction", "flow"] = "epsilon"
    """What the network predicts (SD2-base: epsilon; SD2 at 768 px: v; SD3: flow, arXiv:2403.03206). [content]"""
    timestep_shift: float = added(0.0, ge=0)
    """With flow: how far timesteps are shifted towards noise, in training and in the exported model (SD3: 3 at 1024
    px); 0: by resolution, side / 256 px, and 1 below. [content]"""
    snr_gamma: float = Field(0.0, ge=0)
    """Min-SNR weighting (Hang et al. 2023, arXiv:2303.09556: 5); 0: off. [content]"""
    zero_terminal_snr: bool = False
    """Rescale the noise schedule to end in pure noise (Lin et al. 2023, arXiv:2305.08891). [content]"""
    noise_offset: float = Field(0.0, ge=0)
    """Strength of the noise shared by a channel; 0: off. [content]"""
    caption_dropout: float = Field(0.1, ge=0, le=1)
    """Fraction of captions replaced by the empty one, for classifier-free guidance (SD: 0.1). [content]"""
    written_captions: float = added(0.0, ge=0, le=1)
    """Share of the samples that are trained on with the caption that Recaption wrote, drawn anew each time that one is
    seen; the others have their original one, as validation and evaluation always do. [content]"""
    encoder_dropout: float = added(0.0, ge=0, lt=1)
    """Of several text encoders: fraction of the samples for which each is left out, independently, so that the model
    can also be drawn with without it (SD3: 0.464). [content]"""
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    """Decay of the moving average of the weights, for each ema_reference_samples; 0: no average. [content]"""
    ema_reference_samples: int = Field(2048, ge=1)
    """Samples for which ema_decay is applied once, so that the average does not change with the batch. [content]"""
    ema_precision: Literal["float32", "bfloat16"] = "float32"
    """In which the average is kept. bfloat16 saves 2 bytes a parameter; it is rounded at random, so that small steps
    are not lost. [content]"""
    initial_weights: Literal["scratch", "pretrained", "model"] = "scratch"
    """`pretrained` starts from the weights of the pretrained channel, `model` from those of the model archive in
    the channel initial_model, as a second phase does. [content]"""
    new_objective: bool = added(False)
    """Let the starting weights go on with another prediction_type or noise schedule than they were trained with, as
    Stable Diffusion 2 at 768 px did from the base model; without it, a contradiction is refused. [content]"""
    routing_fraction: float = added(0.0, ge=0, lt=1)
    """Of a transformer's picture tokens: fraction, drawn anew for each sample, that in training skips all blocks but
    the first two and the last two (TREAD, arXiv:2501.04765: 0.5); 0: none. [content]"""
    routing_from_px: int = added(0, ge=0)
    """Route no tokens where encode.resolution_px is below this: it pays where tokens are many. [content]"""
    alignment_weight: float = added(0.0, ge=0)
    """Weight of the loss that aligns a transformer's block with the features that Encode stored (encode.features; REPA,
    arXiv:2410.06940: 0.5); 0: none. [content]"""
    alignment_block: int = added(0, ge=0)
    """Which block is aligned, counted from 1; 0: the last of the first third (REPA: 8 of 24 or 28). [content]"""
    alignment_samples: int = added(0, ge=0)
    """Align during the first so many samples alone: later it holds the model back; 0: to the end. [content]"""
    lora_rank: int = added(0, ge=0)
    """Train a LoRA of this rank (Hu et al. 2021, arXiv:2106.09685) and leave the starting weights as they are: 4 to 64;
    0: train all weights. [content]"""
    lora_alpha: float = added(0.0, ge=0)
    """The LoRA's product counts lora_alpha / lora_rank times; 0: once. [content]"""
    lora_targets: tuple[str, ...] = added(("to_q", "to_k", "to_v", "to_out.0"), min_length=1)
    """Layers of the network that get a LoRA, by the ends of their names. A transformer's attention has add_q_proj,
    add_k_proj, add_v_proj and to_add_out, too, for the text. [content]"""
    lora_text_encoder: bool = added(False)
    """Also train a LoRA of the text encoder's attention; captions must be stored as tokens. [content]"""
    lora_output: Literal["separate", "merged"] = added("separate")
    """`separate`: the model is the one that training began with, with the adapter beside it, for requests that name it;
    `merged`: the adapter is added to the model's weights. [running]"""
    lora_name: str = added("lora", pattern=ADAPTER_NAME)
    """Name of the adapter, by which requests ask for it. [running]"""
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "bfloat16"
    """Of the forward pass (autocast); the weights stay in float32. auto: bfloat16 where the device has it, else
    float32. float64 is for tests of exactness. [content]"""
    compile: bool = False
    """torch.compile the network. [running]"""
    cuda_graphs: bool = False
    """With compile, on a GPU: record the network's kernels once and replay them as CUDA graphs, which pays where a
    micro-batch is so small that starting kernels takes longer than they do. Takes memory of its own. [running]"""
    gradient_checkpointing: bool = False
    """Trade a third more compute for activations' memory. [running]"""
    shard_optimizer: bool = False
    """Divide AdamW's moments and the average of the weights among the ranks (ZeRO stage 1, arXiv:1910.02054): 10.4 GB
    on each rank become 10.4 GB / ranks. Each gets its piece of the gradients and sends its piece of the weights, so
    that as much travels as without (with Muon, half as much more). The result is the same up to rounding, over gloo
    to the bit. Muon's moment stays whole. [running]"""
    gradient_bucket_mb: int = added(25, ge=1)
    """Gradients travel in buckets of so many MiB while the backward pass goes on, and with compile the network is cut
    into as many graphs: larger ones cost fewer cuts, and more waiting at the end of the pass. [running]"""
    gradient_compression: Literal["none", "bfloat16"] = added("none")
    """bfloat16: gradients travel, and are added up, in half the bytes, and are rounded to 8 bits. [content]"""
    warm_latents: bool = False
    """Have FSx for Lustre fetch every shard at the start, so that the first epoch does not crawl. [running]"""
    latents_uri: str = ""
    """s3:// prefix of the latents: blocks are read straight from S3, by byte ranges; empty: from the channel `latents`
    (a file system, or S3 in fast file mode). file_system.kind s3_direct fills it in. [place]"""
    max_lanes: int = added(256, ge=1)
    """The order of samples is dealt to so many lanes at most: a divisor of the global batch. A rank reads its own lanes
    alone where there are as many as ranks, and holds two blocks of each. [content]"""
    seed: int = Field(0, ge=0)
    """Everything random is a function of this and the sample's index. [content]"""
    validation_samples: int = Field(2048, ge=1)
    """Held-out samples of the validation loss, on fixed noise and fixed timesteps. [running]"""
    validate_every_samples: int = Field(20_480_000, ge=1)
    """How often the validation loss is measured; always at the end. [running]"""
    save_every_samples: int = Field(10_240_000, ge=1)
    """How often a checkpoint is written; always at the end and on SIGTERM. [running]"""
    keep_checkpoints: int = Field(2, ge=1)
    """Older checkpoints are deleted. [running]"""
    shards_uri: str = ""
    """Prefix of the shards: with it, latents are encoded while training, by the hosts of the instance group `encoders`;
    empty: they are read from the channel `latents`. [content]"""
    encode_batch_size: int = Field(32, ge=1)
    """With shards_uri: pictures encoded at once on one device. [running]"""
    blocks_ahead: int = Field(32, ge=1)
    """With shards_uri: blocks that a rank may be waiting for; encoders wait rather than make more. [running]"""
    checkpoints_uri: str = ""
    """s3:// prefix to which SageMaker copies the checkpoints: watched, for it may stop in silence. [place]"""
    max_checkpoint_lag_s: float = Field(1800.0, gt=0)
    """Warn of a checkpoint that is not complete in S3 this long after it was written. [running]"""
    log_every_steps: int = Field(50, ge=1)
    """How often a training-log line is written. [running]"""
    collective_timeout_s: float = Field(600.0, gt=0)
    """A collective that hangs longer than this ends the job. [running]"""
    host_wait_s: float = added(900.0, gt=0)
    """How long a host waits for the job's others: then the job ends and names those that are missing. [running]"""
    latents_wait_s: float = added(900.0, ge=0)
    """How long to wait for files of the latents that are not on the file system yet: FSx for Lustre imports what Encode
    wrote to S3 by itself, minutes later. 0: not at all, as for channels that are S3 itself. [running]"""
    read_threads: int = Field(4, ge=1)
    """Blocks of latents that each rank reads side by side: more hide the latency of S3. [running]"""
    max_lost_fraction: float = Field(0.001, ge=0, lt=1)
    """Fraction of the samples that a rank may fail to read, while others stand in; more end the job. [running]"""
    max_skipped_steps: int = Field(20, ge=0)
    """Optimizer steps that may be left out, for a gradient that is not finite, before the job fails. [running]"""
    throughput_micro_batch_sizes: tuple[int, ...] = ()
    """Measure the speed at these sizes and end: no model is trained (see `python -m steps throughput`). [running]"""
    throughput_s: float = Field(10.0, gt=0)
    """How long each of them is measured, after its warm-up. [running]"""
    budget_usd: float = Field(0.0, ge=0)
    """Dollars that the whole run may cost: training saves a checkpoint and stops at them; 0: no limit. [money]"""
    other_steps_usd: float = Field(0.0, ge=0)
    """Part of budget_usd that the run's other steps take; the rest is for training. [money]"""
    instance_hour_usd: float = Field(0.0, ge=0)
    """Dollars for one host-hour of training; 0: not known, and no cost is logged. [money]"""

    @model_validator(mode="after")
    def _a_lora_needs_a_model(self) -> Self:
        # Speed does not depend on the weights.
        if self.lora_rank and self.initial_weights == "scratch" and not self.throughput_micro_batch_sizes:
            raise ValueError("lora_rank: a LoRA changes a trained model; set initial_weights to pretrained or model")
        if not self.lora_rank and (self.lora_alpha or self.lora_text_encoder):
            raise ValueError("lora_rank is 0, and with it lora_alpha and lora_text_encoder do nothing; set lora_rank")
        return self

    @model_validator(mode="after")
    def _flow_stands_alone(self) -> Self:
        asked = [name for name in ("snr_gamma", "zero_terminal_snr", "noise_offset") if getattr(self, name)]
        if self.prediction_type == "flow" and asked:
            what = "flow has none: it ends in pure noise and weighs by its timesteps"
            raise ValueError(f"{asked[0]}: {what}; leave it out, or set prediction_type to v_prediction")
        if self.prediction_type != "flow" and self.timestep_shift:
            raise ValueError("timestep_shift: only flow has one; leave it out, or set prediction_type to flow")
        return self


# Settings of training that say what it may cost.
MONEY: Final = TrainArguments.names(Decides.MONEY)


class ThroughputArguments(TrainArguments):
    """`python -m steps throughput`: micro-batch sizes to iterations/s, and the best of them."""

    throughput_micro_batch_sizes: tuple[int, ...] = Field((8, 16, 32, 64, 128, 256), min_length=1)
    """Sizes to measure, the smallest first, up to the first that needs too much memory. [running]"""
    random_latents_px: int = Field(256, ge=16, multiple_of=8)
    """Where there is no channel of latents: side of the pictures whose random latents stand in. [running]"""
