"""The latents artifact: its shards, and the manifest and index from their records, after checks of their statistics.

Writes <shard>.tar and, after it, records/<shard>.verified.json: without it the shard does not exist, and a restarted
job makes it again. Latents that were normalised wrongly, scaled twice, or made by other weights train for days before
anyone looks; here they end the step.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import not_
from typing import ClassVar, Final

from pydantic import Field

from params.layout import TRAIN_SPLIT
from params.programs import EncodeSettings
from steps.artifact import RECORDS_FOLDER, Identity, PartRecord
from steps.data.encoding.buckets import Size
from steps.data.encoding.plan import EncodePlan, PlannedShard
from steps.data.latents.latents_index import index_bytes
from steps.data.latents.latents_manifest import (
    FORMAT_VERSION,
    BuiltShard,
    LatentsBucket,
    LatentsManifest,
    build_shard,
)
from steps.data.storage import Storage
from steps.errors import StepError

# Stable Diffusion's factor makes the latents' standard deviation 1 over its training data; other data differ a little.
STD_RANGE: Final = (0.5, 2.0)
# Published VAEs are within 0.3; pictures in [0, 1] instead of [-1, 1], or another model's factor, are not.
MAX_MEAN: Final = 1.0
# Stable Diffusion's VAE reaches 25 dB at 256 px; a picture's mean colour instead of it, 10 to 13.
MIN_PSNR_DB: Final = 15.0
# A shard with fewer rows may be odd by chance; the statistics of all of them are checked at the end.
MIN_CHECKED_ROWS: Final = 256
# Facts that the first releases did not know.
LATER: Final = ("shift_factor", "features_shape")


@dataclass(frozen=True)
class EncodedBlock:
    """What an encoder makes of a block."""

    content: bytes
    """Its safetensors."""
    sums: Sequence[float] = ()
    """See steps.data.encoding.encoder.moments_sums."""
    psnr_db: float = math.nan
    """Of its first pictures, where it is a shard's first block."""
    written: int = 0
    """Rows with a caption of Recaption's."""


class LatentsRecord(PartRecord):
    """What records/<shard>.verified.json holds."""

    folder: ClassVar[str] = RECORDS_FOLDER

    shard: BuiltShard
    sums: tuple[float, ...]
    """See steps.data.encoding.encoder.moments_sums."""
    psnr_db: float
    """Of its first pictures."""
    written: int = Field(0, exclude_if=not_)
    """Rows with a caption of Recaption's."""

    @property
    def part(self) -> tuple[str, int]:
        """Name and size of the tar."""
        return self.shard.listed.name, self.shard.listed.bytes


def write_shard(
    storage: Storage, plan_digest: str, planned: PlannedShard, blocks: Sequence[EncodedBlock]
) -> LatentsRecord:
    """Write a shard from its blocks. Raises StepError for others than planned, OSError where it does not arrive."""
    content, built = build_shard(planned.name, planned.split, (one.content for one in blocks), planned.bucket)
    if built.indexed.block_rows != planned.block_rows:
        raise StepError(f"encode: {planned.name}: blocks of {built.indexed.block_rows} rows, not as planned")
    storage.write_checked(planned.name, content)
    record = LatentsRecord(
        plan_digest=plan_digest,
        shard=built,
        sums=tuple(map(math.fsum, zip(*(one.sums for one in blocks), strict=True))),
        psnr_db=blocks[0].psnr_db,
        written=sum(one.written for one in blocks),
    )
    record.write(storage)
    return record


@dataclass(frozen=True)
class ModelFacts:
    """What the manifest says of the models."""

    encoder_digest: str
    tokenizer_digest: str
    text_encoder_digest: str
    scaling_factor: float
    caption_length: int
    embedding_width: int
    latent_channels: int
    factor: int
    """By which the VAE divides the sides of a picture."""
    shift_factor: float = 0.0
    """The VAE's: what is taken from a latent before it is scaled."""
    features_shape: tuple[int, ...] = ()

    def identity(self) -> Identity:
        """Return what it is known by; without a shift and features as before there were any."""
        return {name: value for name, value in vars(self).items() if value or name not in LATER}

    def latent_shape(self, size: Size) -> tuple[int, int, int]:
        """Return channels, height and width. Raises StepError where the VAE cannot divide the sides of the picture."""
        if any(side_px % self.factor for side_px in size):
            raise StepError(
                f"pictures of {size.width_px} x {size.height_px} px: their sides must be multiples of the VAE's factor "
                f"{self.factor}; change resolution_px or bucket_step_px"
            )
        return self.latent_channels, size.height_px // self.factor, size.width_px // self.factor


@dataclass(frozen=True)
class Statistics:
    """Of latents sampled from the moments, unscaled."""

    mean: float
    std: float
    channel_means: tuple[float, ...]
    channel_stds: tuple[float, ...]


def statistics(records: Sequence[LatentsRecord]) -> Statistics:
    """Return the statistics of shards; the order of the records does not matter."""
    totals = [math.fsum(column) for column in zip(*(record.sums for record in records), strict=True)]
    elements, sums = totals[0], totals[1:]
    channels = len(sums) // 2
    means = tuple(total / elements for total in sums[:channels])
    squares = tuple(total / elements for total in sums[channels:])
    mean, square = math.fsum(means) / channels, math.fsum(squares) / channels
    return Statistics(
        mean=mean,
        std=math.sqrt(max(0.0, square - mean**2)),
        channel_means=means,
        channel_stds=tuple(math.sqrt(max(0.0, wide - centre**2)) for wide, centre in zip(squares, means, strict=True)),
    )


def check_shard(record: LatentsRecord, scaling_factor: float, shift_factor: float = 0.0) -> None:
    """Check a shard, also of an earlier start, so that what is wrong ends the step early. Raises StepError."""
    listed, problems = record.shard.listed, []
    if not record.psnr_db >= MIN_PSNR_DB:
        decoded = f"PSNR {record.psnr_db:.1f} dB, at least {MIN_PSNR_DB:.0f} expected"
        problems.append(f"the first latents of {listed.name} decode to other pictures ({decoded})")
    # Beside a bad picture even the statistics of few rows tell something.
    if listed.split == TRAIN_SPLIT and (problems or listed.rows >= MIN_CHECKED_ROWS):
        problems += _statistics_problems(statistics([record]), scaling_factor, shift_factor)
    _refuse(problems)


def check_statistics(found: Statistics, scaling_factor: float, shift_factor: float = 0.0) -> None:
    """Raise StepError unless the scaled latents have about the centre and the spread that training expects."""
    _refuse(_statistics_problems(found, scaling_factor, shift_factor))


def _refuse(problems: Iterable[str]) -> None:
    if problem := "; ".join(problems):
        raise StepError(
            f"encode: {problem}. Likely causes: the VAE's weights are damaged or untrained; vae/config.json is another "
            "VAE's; the pictures are of a kind that this VAE has not seen. See data.pretrained_uri"
        )


def _statistics_problems(found: Statistics, scaling_factor: float, shift_factor: float) -> Iterator[str]:
    scaled_mean, scaled = (found.mean - shift_factor) * scaling_factor, found.std * scaling_factor
    if not abs(scaled_mean) <= MAX_MEAN:
        yield f"the latents' mean times scaling_factor {scaling_factor:g} is {scaled_mean:.3f}, and should be near 0"
    elif not STD_RANGE[0] <= scaled <= STD_RANGE[1]:
        yield (
            f"the latents' standard deviation is {found.std:.3f}, times scaling_factor {scaling_factor:g} "
            f"it is {scaled:.3f}, and should be near 1"
        )


def latents_artifact(
    plan: EncodePlan,
    records: Sequence[LatentsRecord],
    settings: EncodeSettings,
    models: ModelFacts,
    source_manifest_digest: str,
    captions_manifest_digest: str = "",
) -> tuple[LatentsManifest, bytes]:
    """Return the manifest, and the index's content, in the order of the plan. Raises StepError where a check fails."""
    found = statistics([record for record in records if record.shard.listed.split == TRAIN_SPLIT])
    check_statistics(found, models.scaling_factor, models.shift_factor)
    manifest = LatentsManifest(
        format_version=FORMAT_VERSION,
        plan_digest=records[0].plan_digest,
        source_manifest_digest=source_manifest_digest,
        captions_manifest_digest=captions_manifest_digest,
        written_captions=sum(record.written for record in records),
        latent_shape=models.latent_shape(Size(settings.resolution_px, settings.resolution_px)),
        buckets=_buckets(plan, models) if len(plan.selection.buckets.candidates) > 1 else (),
        counts=_counts(plan, records),
        dropped_heldout_samples=plan.dropped_heldout_samples,
        too_small_samples=plan.too_small_samples,
        latents_mean=found.mean,
        latents_std=found.std,
        channel_means=found.channel_means,
        channel_stds=found.channel_stds,
        decoded_psnr_db=math.fsum(record.psnr_db for record in records) / len(records),
        shards=tuple(record.shard.listed for record in records),
        **settings.model_dump(include={"resolution_px", "caption_embeddings", "precision", "rows_per_block"}),
        **{name: value for name, value in vars(models).items() if name in LatentsManifest.model_fields},
    )
    return manifest, index_bytes(record.shard.indexed for record in records)


def _buckets(plan: EncodePlan, models: ModelFacts) -> tuple[LatentsBucket, ...]:
    counts = {split: plan.bucket_counts(split).tolist() for split in plan.counts}
    return tuple(
        LatentsBucket(
            size_px=size,
            latent_shape=models.latent_shape(size),
            counts={split: of[number] for split, of in counts.items()},
        )
        for number, size in enumerate(plan.selection.buckets.sizes)
    )


def _counts(plan: EncodePlan, records: Sequence[LatentsRecord]) -> dict[str, int]:
    """Return the samples of each split that are there: fewer than planned, where a limit leaves some to training."""
    listed = [record.shard.listed for record in records]
    return {split: sum(shard.rows for shard in listed if shard.split == split) for split in plan.counts}
