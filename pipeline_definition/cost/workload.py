"""How much work one start is: samples, pictures and bytes, from a parameter set, a definition and changed parameters.

Reads nothing else, writes nothing, and needs no SageMaker SDK.
"""

from dataclasses import dataclass

from params.memory import BYTES, ModelFigures, SampleFigures
from params.parameter_names import EVALUATION_SAMPLES, MAX_ROWS, TRAINING_SAMPLES, TUNE_SAMPLES
from params.phases import Phase
from params.settings import Settings
from pipeline_definition.cost.rates import Assumed
from pipeline_definition.cost.training import CostError
from pipeline_definition.jobs.instances import MEMORY_FILE, known_models, model_of
from pipeline_definition.jobs.planned import Values

# Moments are a mean and a standard deviation in float16, for each channel of a position of 8 x 8 pixels; token ids are
# int16, embeddings and features float16.
MOMENTS = 2
PIXELS_PER_POSITION = 8
STORED_BYTES = 2
# Of a cell, by DINOv2-base.
FEATURE_WIDTH = 768
# Of a descriptor: by CLIP ViT-H/14, the widest model that is known to make them, and of the colours in it.
WIDEST, COLOURS = 1280, 192


@dataclass(frozen=True)
class PhaseWork:
    encode_step: str
    train_step: str
    resolution_px: int
    training_samples: int
    global_batch_size: int
    encoded_rows: int
    """Rows that its Encode encodes: all, or what a training that encodes the others itself leaves to it."""
    latents_bytes: float


@dataclass(frozen=True)
class Workload:
    """The quantities that everything else is reckoned from."""

    rows: int
    """Rows of the url table."""
    rows_source: str
    phases: tuple[PhaseWork, ...]
    tune_samples: int
    """Of one trial."""
    trials: int
    evaluation_samples: int
    shards_bytes: float
    latents_bytes: float
    descriptors_bytes: float
    checkpoints_bytes: float
    model_bytes: float

    @property
    def resolution_px(self) -> int:
        """Side of the pictures that the finished model draws."""
        return self.phases[-1].resolution_px

    def phase_of(self, step: str) -> PhaseWork:
        """Return the phase to which a step belongs: the first, as for Tune, where it belongs to none."""
        steps = {name: phase for phase in self.phases for name in (phase.encode_step, phase.train_step)}
        return steps.get(step, self.phases[0])


def workload_of(settings: Settings, values: Values, assumed: Assumed, rows: int | None = None) -> Workload:
    """Return the work of one start; every row is taken to become a sample, which is the most that it can cost.

    `rows` overrides what is known of the url table's length.
    """
    count, source = _rows(settings, values, rows)
    stored = settings.download.image_size_px
    model = declared_model(settings.data.model)
    phases = tuple(_phase(phase, values, count, model.sample) for phase in settings.phases)
    described = {"": 0, "dinov2": FEATURE_WIDTH + COLOURS}.get(settings.encode.descriptors, WIDEST + COLOURS)
    descriptor = described * STORED_BYTES
    checkpoint = model.denoiser_parameters * assumed.checkpoint_bytes_per_parameter
    parameters = model.denoiser_parameters + model.text_encoder_parameters + model.vae_parameters
    return Workload(
        rows=count,
        rows_source=source,
        phases=phases,
        tune_samples=_positive(values, TUNE_SAMPLES),
        trials=settings.tune.trials,
        evaluation_samples=_positive(values, EVALUATION_SAMPLES),
        shards_bytes=count * assumed.jpeg_bytes_256_px * (stored / 256) ** 2,
        latents_bytes=sum(phase.latents_bytes for phase in phases),
        descriptors_bytes=float(descriptor * phases[0].encoded_rows),
        checkpoints_bytes=float(checkpoint * settings.train.keep_checkpoints * len(phases)),
        model_bytes=float(parameters * BYTES["float32"] * len(phases)),
    )


def declared_model(name: str) -> ModelFigures:
    """Return the figures of the model that a set says it trains. Raises CostError where there are none."""
    if model := model_of(None, name):
        return model
    known = ", ".join(repr(one.name) for one in known_models())
    raise CostError(f"data.model: {name!r} is none of {known}; `python -m steps memory` adds it to {MEMORY_FILE.name}")


def _phase(phase: Phase, values: Values, rows: int, sample: SampleFigures) -> PhaseWork:
    pixels = phase.encode.resolution_px
    moments = MOMENTS * sample.latent_channels * (pixels // PIXELS_PER_POSITION) ** 2
    embeddings = sample.caption_values if phase.encode.caption_embeddings else 0
    cells = phase.encode.features_side**2 if phase.encode.features else 0
    latent = STORED_BYTES * (moments + sample.token_ids + embeddings + FEATURE_WIDTH * cells)
    samples, batch = _positive(values, phase.named(TRAINING_SAMPLES)), _positive(values, phase.batch_name)
    limit = phase.encode.max_train_rows
    encoded = min(rows, limit + phase.encode.max_heldout_samples) if limit else rows
    return PhaseWork(phase.encode_name, phase.train_name, pixels, samples, batch, encoded, float(encoded * latent))


def _rows(settings: Settings, values: Values, rows: int | None) -> tuple[int, str]:
    if rows is not None:
        if rows < 1:
            raise CostError(f"--rows {rows}: set it to the length of the url table, 1 or more")
        return rows, "--rows"
    limit = values.integer(MAX_ROWS)
    known = settings.data.rows
    if limit > 0:
        return (min(limit, known), f"{MAX_ROWS} and data.rows") if known else (limit, MAX_ROWS)
    if known:
        return known, "data.rows"
    source = f"{TRAINING_SAMPLES} (each seen once: the most; --rows or data.rows says better)"
    return _positive(values, TRAINING_SAMPLES), source


def _positive(values: Values, name: str) -> int:
    number = values.integer(name)
    if number < 1:
        raise CostError(f"{name} is {values.text(name)!r}: set it to 1 or more")
    return number
