"""The settings of Recaption (stored pictures to long captions) and Encode (shards to latents and caption tokens)."""

from typing import Literal

from pydantic import Field

from params.model import Model, added


class RecaptionSettings(Model):
    """How Recaption works."""

    prompt: str = Field("Describe this picture in one paragraph.", pattern=r"^[^-]", max_length=256)
    """What the captioner is asked; Florence-2 wants `<MORE_DETAILED_CAPTION>`. none: nothing, as of GIT. [content]"""
    max_caption_tokens: int = Field(256, ge=1)
    """A longer caption is cut off at its last whole sentence. [content]"""
    batch_size: int = Field(16, ge=1)
    """Pictures captioned at once on one device. [content]"""
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """In which the captioner runs. [content]"""
    workers: int = Field(0, ge=0)
    """Captioners over the whole cluster; 0: one for each GPU, or one for each core of hosts without. [running]"""
    host_wait_s: float = Field(600.0, gt=0)
    """How long a host waits for the job's other hosts: then the job ends and names those that are missing. [running]"""


class RecaptionArguments(RecaptionSettings):
    """`python -m steps recaption`: stored pictures to long captions, beside the captions that they came with."""

    shards_uri: str
    """Where the shards are: the prefix that Download wrote. [place]"""
    captions_uri: str
    """Where the written captions go: s3:// prefix. [place]"""


class EncodeSettings(Model):
    """How Encode works."""

    resolution_px: int = Field(256, ge=16, le=4096, multiple_of=8)
    """Side of the picture that the VAE sees; with buckets, the root of its area. [content]"""
    max_bucket_ratio: float = Field(1.0, ge=1.0, le=4.0)
    """Pictures keep their aspect up to this ratio of sides: each is cut to the nearest of a few shapes of about
    resolution_px^2 pixels, its bucket, and every batch is of one bucket (SDXL, arXiv:2307.01952: 4). Needs
    download.resize_mode keep_ratio. 1: squares alone. [content]"""
    bucket_step_px: int = Field(64, ge=8, multiple_of=8)
    """Sides of the buckets are multiples of this (SDXL: 64; a UNet halves latents three times). [content]"""
    min_bucket_samples: int = Field(2048, ge=1)
    """A bucket with fewer training samples is given up: its pictures go to the one whose shape is nearest (2,048: one
    global batch of Stable Diffusion 2). [content]"""
    min_original_px: int = added(0, ge=0)
    """Pictures whose original shorter side was below this are left out; 0: resolution_px, so that training sees no
    enlarged picture. Shards that do not record original sizes pass. [content]"""
    batch_size: int = Field(32, ge=1)
    """Pictures encoded at once on one device. [content]"""
    rows_per_block: int = Field(256, ge=1)
    """Rows in one member of a latents shard: what the loader reads at once. [content]"""
    rows_per_shard: int = Field(8192, ge=1)
    """Rows in one latents shard: 8,192 at 256 px are 136 MB, as Lustre likes it. [content]"""
    max_train_rows: int = Field(0, ge=0)
    """Only this many training rows, from the first on, rounded up to whole shards; 0: all. The others are planned all
    the same, for a training that encodes them itself. [content]"""
    heldout_fraction: float = Field(0.001, ge=0.0, lt=1.0)
    """Fraction of the captions, chosen by a hash of the caption, that training never sees. [content]"""
    max_heldout_samples: int = Field(30_000, ge=0)
    """At most this many held-out samples are kept (30,000: MLPerf's and the SD2 card's count). [content]"""
    caption_embeddings: bool = False
    """Also store the text encoder's output: 79 % of the bytes to save 8 % of the compute at 256 px. [content]"""
    features: str = added("", pattern=r"^[a-zA-Z0-9._-]*$")
    """Also store a vision model's features of each picture, for train.alignment_weight: its folder in
    data.evaluator_uri, as transformers saves it, such as dinov2; empty: none. [content]"""
    features_side: int = added(8, ge=1, le=8)
    """With features: they are averaged over this many rows and columns of cells, and take side^2 x the model's width x
    2 bytes a sample: 98 KB with DINOv2-base (768), 25 KB at 4. [content]"""
    descriptors: str = added("", pattern=r"^[a-zA-Z0-9._-]*$")
    """Also store one vector for each training picture, by which Evaluate finds copies of it among what the model draws:
    the folder of a vision model in data.evaluator_uri, such as dinov2 or clip; empty: none. (The model's width + 192) x
    2 bytes a sample, beside the latents: 1.9 KB with DINOv2-base (768). [extent]"""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """In which the VAE runs. The SD2 VAE is known to overflow in float16. [content]"""
    workers: int = Field(0, ge=0)
    """Encoders over the whole cluster; 0: one for each GPU, or one for each core of hosts without. [running]"""
    host_wait_s: float = added(600.0, gt=0)
    """How long a host waits for the job's other hosts: then the job ends and names those that are missing. [running]"""

    @property
    def smallest_original_px(self) -> int:
        """Shorter side that a picture needs to have had."""
        return self.min_original_px or self.resolution_px


class EncodeArguments(EncodeSettings):
    """`python -m steps encode`: shards to latents and caption tokens."""

    shards_uri: str
    """Where the shards are: the prefix that Download wrote. [place]"""
    latents_uri: str
    """Where the latents go: s3:// prefix. [place]"""
    reference_uri: str
    """Where the held-out pictures and captions go, for evaluation: s3:// prefix. [place]"""
    descriptors_uri: str = added("")
    """Where the training pictures' descriptors go, with `descriptors`: s3:// prefix. [place]"""
    captions_uri: str = ""
    """Where Recaption wrote captions: token ids of both are stored; empty: of the original ones alone. [place]"""
