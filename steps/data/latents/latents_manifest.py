"""What manifest.json and the index of the latents artifact hold, and the shards of blocks that they tell of.

A shard is a WebDataset tar, built in memory (some 136 MB) so that its digests are known before it is uploaded.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterable
from operator import not_
from pathlib import PurePosixPath
from typing import Final

from pydantic import Field

from params.model import Model
from steps.data.latents.block import SUFFIX, digest, parse_layout
from steps.errors import StepError

FORMAT_VERSION: Final = 1


class LatentsShard(Model):
    """One shard of the manifest."""

    name: str
    split: str
    """`train` or `heldout`."""
    rows: int
    bytes: int
    sha256: str


class LatentsBucket(Model):
    """Pictures of one shape."""

    size_px: tuple[int, int]
    """Height and width of the pictures that the VAE saw."""
    latent_shape: tuple[int, int, int]
    """Channels, height, width."""
    counts: dict[str, int]


class LatentsManifest(Model):
    """What the latents are and what made them; written last."""

    format_version: int = FORMAT_VERSION
    """Of manifest, index and blocks."""
    plan_digest: str
    """Of everything that decided the content: the shards, the models and the settings."""
    encoder_digest: str
    tokenizer_digest: str
    text_encoder_digest: str
    source_manifest_digest: str
    captions_manifest_digest: str = Field("", exclude_if=not_)
    """Of the captions that Recaption wrote, whose token ids training samples have beside their own; empty: none."""
    written_captions: int = Field(0, exclude_if=not_)
    """Training samples that have one; the others have their original caption twice."""
    resolution_px: int
    """Side of the pictures that the VAE saw, normalised to [-1, 1]; with buckets, the root of their area."""
    latent_shape: tuple[int, int, int]
    """Channels, height, width; with buckets, of a square."""
    buckets: tuple[LatentsBucket, ...] = ()
    """The shapes of the pictures, in the order of their rows; empty: squares alone."""
    scaling_factor: float
    """The VAE's: training multiplies sampled latents by it, once, where it loads them. Stored moments are raw."""
    shift_factor: float = Field(0.0, exclude_if=lambda shift: not shift)
    """The VAE's: training takes it from sampled latents before it scales them."""
    caption_length: int
    """Token ids for each caption; of several tokenizers, those of each in a row."""
    caption_embeddings: bool
    """Whether the text encoder's output is stored too."""
    embedding_width: int
    features_shape: tuple[int, ...] = Field((), exclude_if=not_)
    """Rows and columns of cells and width of a vision model's features of a picture, where they are stored."""
    precision: str
    """In which the VAE ran."""
    rows_per_block: int
    """Rows in a full block."""
    counts: dict[str, int]
    dropped_heldout_samples: int
    """Held-out samples over the limit: in no split."""
    too_small_samples: int = Field(0, exclude_if=not_)
    """Samples of the shards that were left out because their originals were below min_original_px."""
    latents_mean: float
    """Of latents sampled from the moments, over all elements of the training split, unscaled."""
    latents_std: float
    """Of the same; times scaling_factor it is near 1."""
    channel_means: tuple[float, ...]
    channel_stds: tuple[float, ...]
    decoded_psnr_db: float
    """Mean peak signal-to-noise ratio of a few decoded latents against their pictures."""
    shards: tuple[LatentsShard, ...]
    """In the order of their rows."""

    @property
    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """The shape of each bucket's latents: one at least."""
        return tuple(bucket.latent_shape for bucket in self.buckets) or (self.latent_shape,)

    def require(self, *, encoder_digest: str, tokenizer_digest: str, text_encoder_digest: str) -> None:
        """Raise StepError unless the latents were made by this VAE and tokenizer (and text encoder, where cached)."""
        wanted = {"encoder": encoder_digest, "tokenizer": tokenizer_digest}
        if self.caption_embeddings:
            wanted["text_encoder"] = text_encoder_digest
        for part, needed in wanted.items():
            made_by = getattr(self, f"{part}_digest")
            if made_by != needed:
                raise StepError(
                    f"latents: made by another {part.replace('_', ' ')} ({made_by[:12]}, here {needed[:12]}); "
                    "run encode with the pretrained folder that training uses"
                )


class IndexedShard(Model):
    """Where the blocks of one shard are: one entry for each block in each list."""

    name: str
    split: str
    """`train` or `heldout`."""
    bucket: int = 0
    """Which of the manifest's buckets its pictures belong to."""
    block_rows: tuple[int, ...]
    offsets: tuple[int, ...]
    """First byte of the block's safetensors in the tar."""
    sizes: tuple[int, ...]
    """Bytes of the block's safetensors."""
    xxh3: tuple[str, ...]
    """Digest of those bytes (64 bits, hexadecimal)."""


class LatentsIndex(Model):
    """Every block of the artifact: index.json of earlier releases."""

    shards: tuple[IndexedShard, ...]
    """In the order of their rows."""


class BuiltShard(Model):
    """What manifest and index hold of one shard."""

    listed: LatentsShard
    indexed: IndexedShard


def build_shard(name: str, split: str, blocks: Iterable[bytes], bucket: int = 0) -> tuple[bytes, BuiltShard]:
    """Return the bytes of a shard and its description; `blocks` are safetensors, in the order of their rows."""
    stream = io.BytesIO()
    described: list[tuple[int, int, int, str]] = []
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, block in enumerate(blocks):
            # A WebDataset key ends at the first dot.
            member = tarfile.TarInfo(f"{PurePosixPath(name).stem}-{number:05d}.{SUFFIX}")
            member.size, member.mode = len(block), 0o444
            tar.addfile(member, io.BytesIO(block))
            # The padding behind a member is written with it.
            offset = stream.tell() + -len(block) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
            described.append((parse_layout(block).rows, offset, len(block), digest(block)))
    content = stream.getvalue()
    rows, offsets, sizes, xxh3 = zip(*described, strict=True)
    blocks_of = {"block_rows": rows, "offsets": offsets, "sizes": sizes, "xxh3": xxh3}
    indexed = IndexedShard(name=name, split=split, bucket=bucket, **blocks_of)
    sha256 = hashlib.sha256(content).hexdigest()
    listed = LatentsShard(name=name, split=split, rows=sum(rows), bytes=len(content), sha256=sha256)
    return content, BuiltShard(listed=listed, indexed=indexed)
