"""The settings of Recaption: stored pictures to long captions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from params.model import Model


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
