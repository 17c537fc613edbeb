"""The settings of each program that runs inside a job: what its command line accepts.

Reads nothing, writes nothing. `params.arguments` turns each model into flags, hyperparameters or environment
variables, so a field added here is at once a key of the parameter sets, a flag of `python -m steps PROGRAM`, and
an argument in the pipeline definition.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from params.layout import HELDOUT_CAPTIONS, NO_MODEL
from params.model import Model


class DownloadSettings(Model):
    """How Download works."""

    source: Literal["urls", "webdataset", "pictures"] = "urls"
    """What url_table is. `urls`: a table (parquet, CSV, TSV) of addresses; `webdataset`: a prefix of WebDataset shards;
    `pictures`: a folder of pictures, captions in metadata.jsonl (Hugging Face's imagefolder) or in a .txt beside it."""
    url_column: str = "url"
    """Column of the table that holds the image's address."""
    caption_column: str = "caption"
    """Column of the table that holds the caption (LAION names it TEXT)."""
    image_size_px: int = Field(256, ge=16, le=4096)
    """Side of the stored picture, in pixels (phase 1 of Stable Diffusion 2 trains at 256)."""
    resize_mode: Literal["center_crop", "keep_ratio"] = "center_crop"
    """`center_crop`: square; `keep_ratio`: shorter side at image_size_px. Never letterboxed (img2dataset's default)."""
    min_image_size_px: int = Field(64, ge=0)
    """Pictures whose shorter side is below this are left out."""
    max_aspect_ratio: float = Field(3.0, ge=1.0)
    """Pictures more elongated than this are left out."""
    min_aesthetic_score: float = Field(0.0, ge=0.0, le=10.0)
    """Rows with a smaller aesthetic score in the table are left out; 0: no filter (LAION-Aesthetics: 4.5 to 6.5)."""
    max_watermark: float = Field(1.0, ge=0.0, le=1.0)
    """Rows whose picture more probably has a watermark (pwatermark) are left out; 1: no filter (LAION: 0.8)."""
    max_unsafe: float = Field(1.0, ge=0.0, le=1.0)
    """Rows whose picture is more probably unsafe (punsafe) are left out; 1: no filter (Stable Diffusion 2: 0.1)."""
    min_similarity: float = Field(-1.0, ge=-1.0, le=1.0)
    """Rows whose picture and caption are less alike to CLIP are left out; -1: no filter (LAION-2B: 0.28)."""
    languages: tuple[str, ...] = ()
    """Only captions in these languages, as the table names them; empty: no filter."""
    min_caption_characters: int = Field(0, ge=0)
    """Rows with a shorter caption are left out (LAION: 5)."""
    max_caption_characters: int = Field(0, ge=0)
    """Rows with a longer caption are left out; 0: no filter."""
    score_columns: tuple[str, ...] = ()
    """SCORE=COLUMN for columns with names of their own: aesthetic, watermark, unsafe, similarity, width, height or
    language. LAION's and DataComp's names are found without it."""
    dedup: Literal["url", "exact", "perceptual"] = "exact"
    """What counts as a duplicate, of which the first in the table is kept: the same url; also the same bytes; also the
    same look (perceptual hash, about a millisecond of a core for each picture)."""
    max_hash_distance: int = Field(0, ge=0, le=3)
    """Two pictures look the same when their perceptual hashes differ in at most so many of 64 bits."""
    blocklist_uri: str = ""
    """Text file of what is never taken: lines of host:, sha256: or phash: and a value; empty: none."""
    jpeg_quality: int = Field(95, ge=1, le=100)
    """JPEG quality of the stored pictures (img2dataset's default)."""
    samples_per_shard: int = Field(10_000, ge=1)
    """Rows of the table for one shard: 10,000 at 256 px are about 300 MB (img2dataset's advice for S3)."""
    max_rows: int = Field(0, ge=0)
    """Only the first so many rows of the table; 0: all of them."""
    processes: int = Field(0, ge=0)
    """Download processes for each host; 0: one for each core."""
    threads: int = Field(64, ge=1)
    """Connections for each process (measured: 2 processes x 64 threads are 1.8 times 1 x 16)."""
    timeout_s: float = Field(10.0, gt=0)
    """Limit for one picture, from connect to the last byte."""
    retries: int = Field(1, ge=0)
    """Further tries after a failure that can pass (time-out, 5xx)."""
    max_body_mb: int = Field(32, ge=1)
    """A body larger than this is dropped: one row lost, not the host's memory."""
    max_image_megapixels: int = Field(100, ge=1)
    """A picture that would decode to more than this is dropped before it is decoded."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts (host or host:port) that may be fetched although their address is private, such as a local server."""
    min_yield: float = Field(0.5, ge=0.0, le=1.0)
    """The step fails when a smaller fraction of the rows that the filters leave became samples."""
    top_up: int = Field(0, ge=0)
    """Rounds of trying again what failed for a reason that can pass. Raised by one, a finished download tries only what
    is still missing."""


class DownloadArguments(DownloadSettings):
    """`python -m steps download`: url table to WebDataset shards."""

    url_table: str
    """Where the url table is: s3:// address or path of a file or of a folder of them (see source)."""
    shards_uri: str
    """Where the shards go: s3:// prefix. They are written there directly, never to a local disk."""


class EncodeSettings(Model):
    """How Encode works."""

    resolution_px: int = Field(256, ge=16, le=4096, multiple_of=8)
    """Side of the picture that the VAE sees; with buckets, the root of its area."""
    max_bucket_ratio: float = Field(1.0, ge=1.0, le=4.0)
    """Pictures keep their aspect up to this ratio of sides: each is cut to the nearest of a few shapes of about
    resolution_px^2 pixels, its bucket, and every batch is of one bucket (SDXL, arXiv:2307.01952: 4). Needs
    download.resize_mode keep_ratio. 1: squares alone."""
    bucket_step_px: int = Field(64, ge=8, multiple_of=8)
    """Sides of the buckets are multiples of this (SDXL: 64; the UNet halves latents, 8 times smaller, three times)."""
    min_bucket_samples: int = Field(2048, ge=1)
    """A bucket with fewer training samples is given up: its pictures go to the one whose shape is nearest (2,048: one
    global batch of Stable Diffusion 2)."""
    batch_size: int = Field(32, ge=1)
    """Pictures encoded at once on one device."""
    rows_per_block: int = Field(256, ge=1)
    """Rows in one member of a latents shard: what the loader reads at once."""
    rows_per_shard: int = Field(8192, ge=1)
    """Rows in one latents shard: 8,192 at 256 px are 136 MB, as Lustre likes it."""
    max_train_rows: int = Field(0, ge=0)
    """Only the first so many training rows, rounded up to whole shards; 0: all. The others are planned all the same,
    for a training that encodes them itself."""
    heldout_fraction: float = Field(0.001, ge=0.0, lt=1.0)
    """Fraction of the captions, chosen by a hash of the caption, that training never sees."""
    max_heldout_samples: int = Field(30_000, ge=0)
    """At most so many held-out samples are kept (30,000: the count of MLPerf's and the SD2 card's evaluation)."""
    caption_embeddings: bool = False
    """Also store the text encoder's output: 79 % of the bytes to save 8 % of the compute at 256 px."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """In which the VAE runs. The SD2 VAE is known to overflow in float16."""
    workers: int = Field(0, ge=0)
    """Encoders over the whole cluster; 0: one for each GPU, or one for each core of hosts without."""


class EncodeArguments(EncodeSettings):
    """`python -m steps encode`: shards to latents and caption tokens."""

    shards_uri: str
    """Where the shards are: the prefix that Download wrote."""
    latents_uri: str
    """Where the latents go: s3:// prefix."""
    reference_uri: str
    """Where the held-out pictures and captions go, for evaluation: s3:// prefix."""


# Settings of training that say what it may cost.
MONEY: Final = ("budget_usd", "other_steps_usd", "instance_hour_usd")


class TrainArguments(Model):
    """`python -m steps train`: latents to a trained model. Tuning trials and the training job run the same program."""

    training_samples: int = Field(1_126_400_000, ge=1)
    """How many samples to train on (phase 1 of Stable Diffusion 2: 550,000 steps of 2,048)."""
    global_batch_size: int = Field(2048, ge=1)
    """Samples for one optimizer step, over all ranks (Stable Diffusion 2: 2,048)."""
    micro_batch_size: int = Field(128, ge=1)
    """Samples on one device at once. Global batch / (micro-batch x ranks) is the gradient accumulation."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate of AdamW (Stable Diffusion 2: 1e-4)."""
    learning_rate_batch_size: int = Field(0, ge=0)
    """The global batch for which learning_rate was found, such as Tune's. AdamW's rate grows with the square root of
    the batch (Malladi et al. 2022, arXiv:2205.10287): the peak is learning_rate x sqrt(global_batch_size / this). 0: it
    was found for global_batch_size itself."""
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up (Stable Diffusion 2: constant)."""
    warmup_samples: int = Field(20_480_000, ge=0)
    """Linear warm-up (Stable Diffusion 2: 10,000 steps of 2,048)."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's decoupled weight decay (Stable Diffusion 2: 0.01)."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's first moment (torch's default)."""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """AdamW's second moment (torch's default)."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    """What the UNet predicts (SD2-base: epsilon; SD2 at 768 px: v)."""
    snr_gamma: float = Field(0.0, ge=0)
    """Min-SNR weighting (Hang et al. 2023, arXiv:2303.09556: 5); 0: off."""
    zero_terminal_snr: bool = False
    """Rescale the noise schedule to end in pure noise (Lin et al. 2023, arXiv:2305.08891)."""
    noise_offset: float = Field(0.0, ge=0)
    """Strength of the noise shared by a channel; 0: off."""
    caption_dropout: float = Field(0.1, ge=0, le=1)
    """Fraction of captions replaced by the empty one, for classifier-free guidance (Stable Diffusion: 0.1)."""
    ema_decay: float = Field(0.9999, ge=0, lt=1)
    """Decay of the moving average of the weights, for each ema_reference_samples; 0: no average."""
    ema_reference_samples: int = Field(2048, ge=1)
    """How many samples one application of ema_decay stands for, so that the average does not change with the batch."""
    ema_precision: Literal["float32", "bfloat16"] = "float32"
    """In which the average is kept. bfloat16 saves 2 bytes a parameter; it is rounded at random, so that small steps
    are not lost."""
    initial_weights: Literal["scratch", "pretrained", "model"] = "scratch"
    """`pretrained` starts from the UNet weights of the pretrained channel, `model` from those of the model archive in
    the channel initial_model, as a second phase does."""
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "bfloat16"
    """Of the forward pass (autocast); the weights stay in float32. auto: bfloat16 where the device has instructions for
    it, otherwise float32. float64 is for tests of exactness."""
    compile: bool = False
    """torch.compile the UNet."""
    cuda_graphs: bool = False
    """With compile, on a GPU: record the UNet's kernels once and replay them as CUDA graphs, which pays where a
    micro-batch is so small that starting kernels takes longer than they do. Takes memory of its own."""
    gradient_checkpointing: bool = False
    """Trade a third more compute for activations' memory."""
    shard_optimizer: bool = False
    """Divide AdamW's moments and the average of the weights among the ranks (ZeRO stage 1, arXiv:1910.02054): 10.4 GB
    on each rank become 10.4 GB / ranks, for a broadcast of the weights (3.5 GB) in every step. The result is the same
    to the bit."""
    warm_latents: bool = False
    """Have FSx for Lustre fetch every shard from its bucket at the start, so that the first epoch does not crawl."""
    latents_uri: str = ""
    """s3:// prefix of the latents: blocks are read straight from S3, by byte ranges; empty: from the channel `latents`
    (a file system, or S3 in fast file mode). file_system.kind s3_direct fills it in."""
    seed: int = Field(0, ge=0)
    """Everything random is a function of this and the sample's index."""
    validation_samples: int = Field(2048, ge=1)
    """Held-out samples of the validation loss, on fixed noise and fixed timesteps."""
    validate_every_samples: int = Field(20_480_000, ge=1)
    """How often the validation loss is measured; always at the end."""
    save_every_samples: int = Field(10_240_000, ge=1)
    """How often a checkpoint is written; always at the end and on SIGTERM."""
    keep_checkpoints: int = Field(2, ge=1)
    """Older checkpoints are deleted."""
    shards_uri: str = ""
    """Prefix of the shards: with it, latents are encoded while training, by the hosts of the instance group `encoders`;
    empty: they are read from the channel `latents`."""
    encode_batch_size: int = Field(32, ge=1)
    """With shards_uri: pictures encoded at once on one device."""
    blocks_ahead: int = Field(32, ge=1)
    """With shards_uri: blocks that a rank has asked for and not yet been given; encoders wait rather than make more."""
    checkpoints_uri: str = ""
    """s3:// prefix to which SageMaker copies the checkpoints: watched, since it was seen to stop in silence."""
    max_checkpoint_lag_s: float = Field(1800.0, gt=0)
    """A checkpoint that is not whole in S3 so long after it was written is warned of."""
    log_every_steps: int = Field(50, ge=1)
    """How often a training-log line is written."""
    collective_timeout_s: float = Field(600.0, gt=0)
    """A collective that hangs longer than this ends the job."""
    read_threads: int = Field(8, ge=1)
    """Blocks of latents that each rank reads side by side: more hide the latency of S3."""
    max_lost_fraction: float = Field(0.001, ge=0, lt=1)
    """Fraction of the samples that a rank may fail to read, while others stand in; more end the job."""
    max_skipped_steps: int = Field(20, ge=0)
    """Optimizer steps that may be left out, for a gradient that is not finite, before the job fails."""
    throughput_micro_batch_sizes: tuple[int, ...] = ()
    """Measure the speed at these micro-batch sizes and end: no model is trained (see `python -m steps throughput`)."""
    throughput_s: float = Field(10.0, gt=0)
    """How long each of them is measured, after its warm-up."""
    budget_usd: float = Field(0.0, ge=0)
    """Dollars that the whole run may cost: training saves a checkpoint and stops before it costs more; 0: no limit."""
    other_steps_usd: float = Field(0.0, ge=0)
    """What of budget_usd the run's other steps take: the rest is training's."""
    instance_hour_usd: float = Field(0.0, ge=0)
    """Dollars for one host-hour of training; 0: not known, and no cost is logged."""


class ThroughputArguments(TrainArguments):
    """`python -m steps throughput`: micro-batch sizes to iterations/s, and the best of them."""

    throughput_micro_batch_sizes: tuple[int, ...] = Field((8, 16, 32, 64, 128, 256), min_length=1)
    """Sizes to measure, the smallest first, up to the first that needs too much memory."""
    random_latents_px: int = Field(256, ge=16, multiple_of=8)
    """Where there is no channel of latents: side of the pictures whose random latents stand in."""


class EvaluateArguments(Model):
    """`python -m steps evaluate`: a trained model to metrics.json and a contact sheet."""

    captions: str = HELDOUT_CAPTIONS
    """What is drawn: `heldout`, the captions of the reference, or the s3:// address or path of any caption file (.txt,
    .csv, .tsv, .jsonl, .json as COCO writes it, .parquet). A column `seed` in it states each picture's seed."""
    samples: int = Field(30_000, ge=2)
    """Pictures to generate (MLPerf and the SD2 card: 30,000)."""
    batch_size: int = Field(16, ge=1)
    """Pictures generated at once on one device."""
    guidance_scale: float = Field(8.0, ge=0)
    """Classifier-free guidance (MLPerf: 8)."""
    guidance_grid: tuple[Annotated[float, Field(ge=0)], ...] = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    """Guidance scales of the FID-CLIP curve (the SD2 card's)."""
    grid_samples: int = Field(10_000, ge=0)
    """Pictures at each guidance scale of the curve, of the first prompts (the SD2 card: 10,000); 0: no curve."""
    inference_steps: int = Field(50, ge=1)
    """Denoising steps (MLPerf: 50 with DDIM)."""
    sampler: Literal["ddim", "dpm++", "euler"] = "ddim"
    """Which scheduler denoises."""
    seed: int = Field(0, ge=0)
    """Picture i starts from the noise of (seed, i)."""
    untrained_samples: int = Field(2048, ge=0)
    """Pictures of the untrained model, as a sanity row; 0: none."""
    comparison_samples: int = Field(10_000, ge=0)
    """Pictures of the generic pretrained model, where the pretrained folder has its UNet's weights, and of the approved
    model: each is compared with the trained one on the same prompts and seeds; 0: no comparison."""
    pretrained_size_px: int = Field(0, ge=0, multiple_of=8)
    """Side at which the generic pretrained model draws before its pictures are reduced to the reference's: models draw
    poorly at sizes that they were not trained at (stable-diffusion-2-base: 512); 0: the reference's."""
    require_pretrained: bool = False
    """Refuse a pretrained folder without a UNet's weights: the gate compares with that model."""
    approved_model: str = NO_MODEL
    """Address of the approved model's archive (model.tar.gz), to be compared with; `none`: there is none yet, and the
    model is compared with itself."""
    contact_sheet_samples: int = Field(48, ge=1)
    """Pictures on the contact sheet."""
    precision: Literal["float32", "bfloat16", "float16"] = "float16"
    """In which the model generates."""
    fid_features: Literal["inception", "clip"] = "inception"
    """`inception`: Inception v3's pooled features (comparable with published FID); `clip`: the evaluator's CLIP's."""
    samples_uri: str = ""
    """Prefix that outlives the job, where pictures are kept while they are generated: a killed evaluation goes on from
    it, and several hosts share the work through it. Empty: kept in the job's output alone, and one host."""


class ScoreArguments(Model):
    """`python -m steps score`: pictures and their captions to CLIP scores."""

    pictures: str
    """File with one JSON object a line: {"picture": path, "caption": text}."""
    evaluator: str
    """Folder that holds clip/, a CLIPModel as transformers saves it."""
    scores: str
    """JSON file that is written."""


class ServeArguments(Model):
    """`python -m steps serve`: the endpoint. Its settings arrive as environment variables named SERVE_<FIELD>."""

    guidance_scale: float = Field(7.5, ge=0, le=30)
    """Used when a request names none (diffusers' default)."""
    inference_steps: int = Field(25, ge=1, le=150)
    """Used when a request names none (25 with DPM-Solver++ match 50 with DDIM: Lu et al. 2022, arXiv:2211.01095)."""
    sampler: Literal["ddim", "dpm++", "euler"] = "dpm++"
    """Used when a request names none."""
    default_size_px: int = Field(512, ge=8, multiple_of=8)
    """Width and height when a request names none."""
    max_size_px: int = Field(1024, ge=8, multiple_of=8)
    """Largest width or height that a request may ask for."""
    max_images: int = Field(4, ge=1)
    """Most pictures for one request."""
    max_inference_steps: int = Field(100, ge=1, le=500)
    """Most denoising steps for one request (diffusers' samplers break down near the 1,000 steps of training)."""
    max_batch_size: int = Field(8, ge=1)
    """Most pictures denoised together: requests that share a shape are batched."""
    batch_wait_ms: float = Field(5.0, ge=0)
    """How long the first request waits for others to share its batch."""
    queue_size: int = Field(32, ge=1)
    """Requests waiting beyond this are answered with 429 and Retry-After."""
    timeout_s: float = Field(55.0, gt=0, lt=60)
    """A request that takes longer is answered with 504: SageMaker itself gives up at 60 s."""
    precision: Literal["float32", "bfloat16", "float16"] = "float16"
    """In which the model generates."""
    channels_last: bool = False
    """Convolutions in channels-last memory format (PyTorch's advice for half precision on tensor cores)."""
    compile: bool = False
    """torch.compile the UNet for pictures of the default size: minutes of warm-up, then faster steps."""
    exact_batches: bool = False
    """Batch only where pictures then equal, bit for bit, those denoised alone. It is measured at start: so on CPUs
    without `compile`; where a GPU's kernels depend on the batch, pictures are denoised one by one."""
    threads: int = Field(0, ge=0)
    """CPU threads of one operation; 0: PyTorch's own choice."""
    safety_checker: bool = True
    """Use the model folder's safety checker, where it has one: what it flags comes out black and is named."""
    model_name: str = Field("", max_length=256)
    """Written into every picture, such as the ARN of the model package; empty: the digest of the model folder."""
    max_prompt_characters: int = Field(2000, ge=1)
    """Longest prompt (CLIP reads its first 77 tokens; a picture says when its prompt was cut)."""
    max_body_bytes: int = Field(65_536, ge=1024)
    """Larger request bodies are answered with 413."""
    body_timeout_s: float = Field(10.0, gt=0)
    """A client that sends its request more slowly is answered with 408."""
    drain_timeout_s: float = Field(25.0, ge=0)
    """How long running requests may finish after SIGTERM: SageMaker kills 30 s after it."""
    host: str = "0.0.0.0"
    """Address to listen on; the port is SAGEMAKER_BIND_TO_PORT (8080)."""
    log_prompts: bool = False
    """Write prompts into the log."""
