"""Every string that two rooms share: containers' paths, artifact names, channel names, file patterns, metric keys.

The pipeline definition and the programs inside the jobs never import each other: they meet here.
"""

from typing import Final

# The command line of every image: SageMaker's `train` and `serve` arrive as its first argument.
ENTRY_POINT: Final = ("python", "-m", "steps")

# SageMaker's container contract. The toolkits' variable moves its root, so that a job can run outside a container.
BASE_DIR_VARIABLE: Final = "SAGEMAKER_BASE_DIR"
BASE_DIR: Final = "/opt/ml"
# Tells a hosting container its instance type: unlike a job's container, it has no file that does.
INSTANCE_TYPE_VARIABLE: Final = "SD_PIPELINE_INSTANCE_TYPE"
PROCESSING_INPUT_DIR: Final = "/opt/ml/processing/input"
PROCESSING_OUTPUT_DIR: Final = "/opt/ml/processing/output"
CHECKPOINT_DIR: Final = "/opt/ml/checkpoints"

# Artifacts: each is a folder or prefix that holds its data and a manifest, written last.
MANIFEST_FILE: Final = "manifest.json"
SHARDS: Final = "shards"
CAPTIONS: Final = "captions"
LATENTS: Final = "latents"
REFERENCE: Final = "reference"
DESCRIPTORS: Final = "descriptors"
MODEL: Final = "model"
EVALUATOR: Final = "evaluator"
EVALUATION: Final = "evaluation"
CHECKPOINTS: Final = "checkpoints"
ASYNC: Final = "async"
# What is kept for days only: models of trials, measurements, and pictures of evaluations under way.
TUNING: Final = "tuning"
SAMPLES: Final = "samples"
# What the probe writes, below each of these, and its results below TUNING.
PROBE: Final = "sd-pipeline-probe"

# The probe's endpoint runs the inference image's own command, `serve`; PROBE_<FIELD> of its model's environment says
# that it is one. Each line of a job's log that begins with the second is a measurement.
PROBE_PREFIX: Final = "PROBE_"
PROBE_LINE: Final = "PROBE "

# The endpoint's settings: SERVE_<FIELD> of its model's environment.
SERVE_PREFIX: Final = "SERVE_"

# Files inside artifacts.
SHARD_PATTERN: Final = "{index:05d}.tar"
WRITTEN_CAPTIONS_SUFFIX: Final = ".captions.parquet"
LATENTS_SHARD_PATTERN: Final = "{split}-{index:05d}.tar"
LATENTS_INDEX_FILE: Final = "index.arrow"
LATENTS_FORMER_INDEX_FILE: Final = "index.json"
LATENTS_PLAN_FILE: Final = "plan.json"
TRAIN_SPLIT: Final = "train"
HELDOUT_SPLIT: Final = "heldout"
REFERENCE_SHARD_PATTERN: Final = "reference-{index:05d}.tar"
METRICS_FILE: Final = "metrics.json"
CONTACT_SHEET_FILE: Final = "contact_sheet.png"
COPIES_FILE: Final = "copies.html"
SAMPLES_DIR: Final = "samples"
SAMPLES_FILE: Final = "samples.json"
TRAINING_LOG_FILE: Final = "training_log.jsonl"
THROUGHPUT_FILE: Final = "throughput.json"
LINEAGE_FILE: Final = "lineage.json"
# In a model's folder: adapters to choose from, each in a folder of its name, and those that its weights hold already.
ADAPTERS_DIR: Final = "adapters"
MERGED_ADAPTERS_DIR: Final = "merged_adapters"
ADAPTER_FILE: Final = "pytorch_lora_weights.safetensors"
# In a pretrained folder: where each part came from.
SOURCES_FILE: Final = "sources.json"
CHECKSUMS_FILE: Final = "checksums.json"
MODEL_ARCHIVE: Final = "model.tar.gz"
OUTPUT_ARCHIVE: Final = "output.tar.gz"

# The step, where there is one, that measures and trains nothing: told apart from those that train.
THROUGHPUT_STEP: Final = "Throughput"

# Pictures that somebody has already, by the ends of their names, and what holds their captions.
PICTURES: Final = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"),
    *(".jfif", ".jpe", ".tif", ".tiff", ".avif", ".jp2", ".j2k", ".heic", ".heif", ".jxl"),
)
METADATA_FILES: Final = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
# The later wins where a picture has both, unless it is blank.
CAPTION_FILES: Final = (".caption", ".txt")
TARS: Final = (".tar", ".tar.gz", ".tgz")

# Training channels.
LATENTS_CHANNEL: Final = "latents"
PRETRAINED_CHANNEL: Final = "pretrained"
INITIAL_MODEL_CHANNEL: Final = "initial_model"
CAPTIONER: Final = "captioner"

# Instance groups of a training job that encodes while it trains.
TRAINERS_GROUP: Final = "trainers"
ENCODERS_GROUP: Final = "encoders"

# Words that stand for nothing where a pipeline parameter cannot be empty.
HELDOUT_CAPTIONS: Final = "heldout"
NO_MODEL: Final = "none"

# Keys of metrics.json: `metrics.<key>.value` (and .low and .high, its interval) is what the gate reads.
FID: Final = "fid"
# Of infinitely many pictures, extrapolated: there where there are enough.
FID_INFINITY: Final = "fid_infinity"
FID_UNTRAINED: Final = "fid_untrained"
FID_REAL: Final = "fid_real"
CLIP_FID: Final = "clip_fid"
KID: Final = "kid"
# Further metrics, each where evaluate.metrics names it; precision_recall gives two.
FID_PYTORCH: Final = "fid_pytorch"
FID_CLEAN: Final = "fid_clean"
FD_DINOV2: Final = "fd_dinov2"
CMMD: Final = "cmmd"
PRECISION_RECALL: Final = "precision_recall"
PRECISION: Final = "precision"
RECALL: Final = "recall"
PICK_SCORE: Final = "pick_score"
CLIP_SCORE: Final = "clip_score"
CLIP_SCORE_UNTRAINED: Final = "clip_score_untrained"
CLIP_SCORE_REAL: Final = "clip_score_real"
# How much worse than another model, on the same prompts: differences, positive where the trained model is worse.
FID_ABOVE_PRETRAINED: Final = "fid_above_pretrained"
FID_ABOVE_APPROVED: Final = "fid_above_approved"
FID_ABOVE_UNTRAINED: Final = "fid_above_untrained"
CLIP_SCORE_BELOW_PRETRAINED: Final = "clip_score_below_pretrained"
CLIP_SCORE_BELOW_APPROVED: Final = "clip_score_below_approved"
CLIP_SCORE_BELOW_UNTRAINED: Final = "clip_score_below_untrained"
# In such a difference where the pictures were too few for FID: how many are enough, and what decided in its place. Its
# upper bound is then below 0 if the trained model is shown to be better, else this number, which no gate lets pass.
ENOUGH_PICTURES: Final = "enough_pictures"
JUDGED_BY: Final = "judged_by"
UNKNOWN_BOUND: Final = 1e9
# Real pictures with their own captions against those of all others: above 0, or the CLIP cannot judge these pictures.
CLIP_SCORE_MARGIN: Final = "clip_score_margin"
# Shares of copies of training pictures: among those that were drawn, among those drawn from the captions that training
# saw most often, and among the real ones that were held out.
COPIES: Final = "copies"
COPIES_REPEATED: Final = "copies_repeated"
COPIES_REAL: Final = "copies_real"
# Share of pictures that show what their prompt asks for; a kind's has its name behind, as prompt_following_colour.
PROMPT_FOLLOWING: Final = "prompt_following"
# In metrics.json: sentences without which no verdict may be shown.
WARNINGS: Final = "warnings"
# Beside `metrics`: the FID-CLIP curve, a list of {guidance_scale, pictures, fid: {value, low, high}, clip_score: ...}.
GUIDANCE_CURVE: Final = "guidance_curve"

# What metrics.json says of the model itself, under `model`: the registry reads these two.
MODEL_RECORD: Final = "model"
MODEL_CODE_DIGEST: Final = "code_digest"
MODEL_IMAGES_PER_S: Final = "images_per_s"
UNKNOWN: Final = "unknown"

# One training-log line is `key=value` pairs: SageMaker's metric definitions read them with these patterns.
NUMBER_PATTERN: Final = r"([-+]?(?:[0-9]*\.)?[0-9]+(?:[eE][-+]?[0-9]+)?)"
VALIDATION_LOSS: Final = "validation_loss"
CHECKPOINT_AGE_S: Final = "checkpoint_age_s"
CHECKPOINT_LAG_S: Final = "checkpoint_lag_s"
TRAINING_METRICS: Final = (
    "training_loss",
    VALIDATION_LOSS,
    "learning_rate",
    "seen_samples",
    "iterations_per_s",
    "images_per_s",
    "images_per_s_per_gpu",
    "mfu",
    "peak_memory_gb",
    "data_s",
    "compute_s",
    "communication_s",
    "remaining_s",
    "cost_usd",
    "remaining_usd",
)

# What the head rank says of its checkpoints in S3, on lines of their own, where it knows the address.
CHECKPOINT_METRICS: Final = (CHECKPOINT_AGE_S, CHECKPOINT_LAG_S)

# Which side waited, where pictures are encoded while training: seconds of a log window.
DATA_S: Final = "data_s"
ENCODER_WAIT_S: Final = "encoder_wait_s"
ONLINE_METRICS: Final = (DATA_S, ENCODER_WAIT_S)

# How executions and steps end. CompletedWithFailures: a step failed, and one that follows it ran all the same.
ENDED_STATUSES: Final = ("Succeeded", "Failed", "Stopped", "CompletedWithFailures")

# A job's progress line, read by the live table: PROGRESS {"step": ..., "done": ..., "total": ..., "unit": ...}.
PROGRESS_PREFIX: Final = "PROGRESS "


def metric_regex(name: str) -> str:
    """Return the pattern with which SageMaker finds `name=<number>` in a log: `loss` not inside `training_loss`."""
    return rf"(?:^|\s){name}={NUMBER_PATTERN}"
