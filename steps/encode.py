"""Verified shards to latents and caption tokens.

Reads the shards' manifest (input `shards`), the models (input `pretrained`, as diffusers saves them) and the pictures
under --shards-uri. Writes latents shards straight to --latents-uri and held-out pictures to --reference-uri, and the
manifests, last, to the outputs `latents` and `reference`.

    python -m steps encode --shards-uri s3://B/shards --latents-uri s3://B/latents --reference-uri s3://B/reference
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from params.arguments import parse
from params.layout import (
    LATENTS,
    LATENTS_INDEX_FILE,
    MANIFEST_FILE,
    REFERENCE,
    SHARDS,
    TRAIN_SPLIT,
)
from params.model import Model
from params.programs import EncodeArguments, EncodeSettings
from steps.container import Container
from steps.data.decoding import Source
from steps.data.encoder_settings import EncoderSettings, model_facts
from steps.data.encoding import EncodeJob, encode_shards, reference_shards, summarize_sources, write_reference
from steps.data.latents_artifact import ModelFacts, check_psnr, check_statistics, latents_artifact, statistics
from steps.data.latents_writer import LatentsRecord, finished_shards
from steps.data.plan import EncodePlan, PlannedShard, make_plan
from steps.data.reference import ReferenceManifest
from steps.data.shards import ShardsManifest, read_shards_manifest
from steps.data.storage import Storage
from steps.errors import StepError
from steps.progress import Progress
from steps.ray_cluster import join, leading

# What decides the latents' content, besides the shards and the models.
_CONTENT_SETTINGS = set(EncodeSettings.model_fields) - {"workers"}
