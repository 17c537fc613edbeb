"""Verified shards to latents and caption tokens.

Reads the shards' manifest (input `shards`), the models (input `pretrained`, as diffusers saves them, and for features
one in the input `evaluator`) and the pictures under --shards-uri. Writes latents shards straight to --latents-uri,
held-out pictures to --reference-uri and, where they are asked for, descriptors to --descriptors-uri, and the manifests,
last, to the outputs `latents`, `reference` and `descriptors`.

    python -m steps encode --shards-uri s3://B/shards --latents-uri s3://B/latents --reference-uri s3://B/reference
"""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

from params import layout
from params.arguments import parse
from params.layout import (
    DESCRIPTORS,
    LATENTS,
    LATENTS_FORMER_INDEX_FILE,
    LATENTS_INDEX_FILE,
    LATENTS_PLAN_FILE,
    MANIFEST_FILE,
    REFERENCE,
)
from params.model import Decides, Model
from params.programs import EncodeArguments
from steps.artifact import Artifact, Identity, publish
from steps.container import Container
from steps.data.encoding.buckets import Buckets, buckets_of
from steps.data.encoding.decoding import ShardsSource
from steps.data.encoding.descriptors import DescriptorsManifest, DescriptorsRecord, file_name, repeated_captions
from steps.data.encoding.encoder_settings import EncoderSettings, model_facts
from steps.data.encoding.latents_artifact import LatentsRecord, check_shard, latents_artifact
from steps.data.encoding.plan import EncodePlan, PlanFile, PlannedShard, Selection, make_plan
from steps.data.encoding.ray_encoding import EncodeJob, encode_shards, results, summarize_sources, write_reference
from steps.data.encoding.reference import ReferenceManifest
from steps.data.encoding.written_captions import captions_digest
from steps.data.shards.shards_artifact import read_shards_manifest
from steps.device import gpus_to_lend
from steps.errors import StepError
from steps.model.digest import folder_digest, folder_family
from steps.progress import Progress
from steps.ray_cluster import join, leading


def main(argv: list[str]) -> int:
    """Run the program: the first host of a job leads, the others lend themselves to it."""
    arguments = parse(EncodeArguments, argv, "encode")
    container = Container()
    cluster, gpus = container.cluster(), gpus_to_lend(container)
    if not cluster.is_head:
        join(cluster, container.job_name, arguments.host_wait_s, gpus=gpus)
        return 0
    inputs = (layout.PRETRAINED_CHANNEL, layout.EVALUATOR, layout.CAPTIONS)
    encode = Encode(arguments, container.input_dir(layout.SHARDS) / MANIFEST_FILE, *map(container.input_dir, inputs))
    artifacts = encode.published()
    # The other hosts wait for a head, also where there is nothing left to do.
    if artifacts is None or len(cluster.hosts) > 1:
        with leading(cluster, container.job_name, arguments.host_wait_s, gpus=gpus):
            artifacts = artifacts or encode.run()
    for name, files in artifacts.items():
        publish(container.output_dir(name), files)
    return 0


Artifacts = dict[str, dict[str, bytes]]
# Beside the manifest of each; of latents that were finished earlier, another index.
FILES: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    LATENTS: tuple((index, LATENTS_PLAN_FILE) for index in (LATENTS_INDEX_FILE, LATENTS_FORMER_INDEX_FILE)),
    REFERENCE: ((),),
    DESCRIPTORS: ((LATENTS_PLAN_FILE,),),
}


class Encode:
    """One encoding: what goes in, and what comes out of it."""

    def __init__(
        self,
        arguments: EncodeArguments,
        manifest: Path,
        pretrained: Path,
        evaluator: Path = Path(),
        captions: Path = Path(),
    ) -> None:
        """Read what goes in. Raises StepError where something is missing or does not fit."""
        self._arguments = arguments
        self._vision = evaluator / arguments.features if arguments.features else None
        self._shards, self._source_digest = read_shards_manifest(manifest)
        if arguments.resolution_px > self._shards.image_size_px:
            raise StepError(
                f"resolution_px: {arguments.resolution_px} px would be blown up from pictures of "
                f"{self._shards.image_size_px} px; download with image_size_px of at least that"
            )
        written = captions / MANIFEST_FILE
        self._captions_digest = captions_digest(written, self._source_digest) if arguments.captions_uri else ""
        self._pretrained = pretrained
        family = folder_family(pretrained)
        if arguments.caption_embeddings and len(family.text) > 1:
            raise StepError(f"caption_embeddings: those of a {family.pipeline} are made in training; set it to false")
        self._models = model_facts(pretrained, self._vision, arguments.features_side)
        self._buckets = self._planned_buckets()
        identity = self._identity()
        self.latents, self.reference = (
            Artifact(uri, identity) for uri in (arguments.latents_uri, arguments.reference_uri)
        )
        self._describer = evaluator / arguments.descriptors
        if bool(arguments.descriptors) != bool(arguments.descriptors_uri):
            raise StepError("descriptors: a model and a place, descriptors_uri, go together")
        self.descriptors = None
        if arguments.descriptors:
            # An identity of their own, so that they can come after the latents.
            described = {**identity, DESCRIPTORS: folder_digest(self._describer)}
            self.descriptors = Artifact(arguments.descriptors_uri, described)

    def published(self) -> Artifacts | None:
        """Return the artifacts where this very encoding was finished before."""
        wanted = {LATENTS: self.latents, REFERENCE: self.reference}
        wanted |= {DESCRIPTORS: self.descriptors} if self.descriptors else {}
        found: Artifacts = {}
        for name, artifact in wanted.items():
            kinds = (artifact.published(*files) for files in FILES[name])
            if (published := next((files for files in kinds if files is not None), None)) is None:
                return None
            found[name] = published
        for artifact in wanted.values():
            artifact.note_identity()
        return found

    def run(self) -> Artifacts:
        """Encode what is missing, on the Ray cluster that is up. Raises StepError where it cannot or a check fails."""
        for artifact in (self.latents, self.reference):
            artifact.begin()
        plan = self._plan()
        job = self._job(plan)
        pictures = write_reference(job, self._arguments.reference_uri)
        rows_per_shard, rows_per_block = self._arguments.rows_per_shard, self._arguments.rows_per_block
        limit = self._arguments.max_train_rows
        shards = list(plan.shards(rows_per_shard, rows_per_block))
        training = [shard for shard in shards if shard.split == layout.TRAIN_SPLIT]
        beyond = {shard.name for shard in training if limit and shard.first_row >= limit}
        planned = [shard for shard in shards if shard.name not in beyond]
        records = self._encode(job, planned)
        sources = (self._source_digest, self._captions_digest)
        manifest, index = latents_artifact(plan, records, self._arguments, self._models, *sources)
        reference = ReferenceManifest(
            plan_digest=self.latents.digest,
            source_manifest_digest=self._source_digest,
            resolution_px=self._arguments.resolution_px,
            samples=len(plan.heldout),
            shards=tuple(results(pictures)),
        )
        std, psnr_db = manifest.latents_std * manifest.scaling_factor, manifest.decoded_psnr_db
        print(
            f"encoded {manifest.counts}: scaled latents have std {std:.3f}, decoded ones {psnr_db:.1f} dB", flush=True
        )
        sizes: dict[str, Any] = {"rows_per_shard": rows_per_shard, "rows_per_block": rows_per_block}
        plan_file = _json(PlanFile(**dict(plan), plan_digest=self.latents.digest, **sizes))
        latents = {LATENTS_INDEX_FILE: index, LATENTS_PLAN_FILE: plan_file, MANIFEST_FILE: _json(manifest)}
        artifacts = {LATENTS: latents, REFERENCE: {MANIFEST_FILE: _json(reference)}}
        if self.descriptors:
            described = self._describe(self.descriptors, job, training)
            artifacts[DESCRIPTORS] = {LATENTS_PLAN_FILE: plan_file, MANIFEST_FILE: _json(described)}
        return artifacts

    def _plan(self) -> EncodePlan:
        arguments, names = self._arguments, [shard.name for shard in self._shards.shards]
        smallest_px = arguments.smallest_original_px
        selection = Selection(arguments.heldout_fraction, self._buckets, smallest_px)
        summaries = summarize_sources(arguments.shards_uri, names, selection)
        plan = make_plan(names, summaries, selection, arguments.max_heldout_samples, arguments.min_bucket_samples)
        if plan.too_small_samples:
            print(f"left out {plan.too_small_samples} pictures that came with fewer than {smallest_px} px", flush=True)
        if not plan.counts[layout.TRAIN_SPLIT]:
            raise StepError(f"encode: none of {self._shards.ledger.kept} samples is left for training")
        return plan

    def _planned_buckets(self) -> Buckets:
        """Return the shapes that pictures may have. Raises StepError where shards or VAE do not allow them."""
        wanted = self._arguments
        if wanted.max_bucket_ratio > 1 and self._shards.resize_mode != "keep_ratio":
            raise StepError(
                f"max_bucket_ratio: the pictures were stored with resize_mode {self._shards.resize_mode}, as squares; "
                "download with resize_mode keep_ratio"
            )
        if wanted.max_bucket_ratio > 1 and wanted.max_train_rows:
            raise StepError("max_train_rows: with buckets it would leave out the widest pictures; set it to 0")
        buckets = buckets_of(wanted.resolution_px, wanted.max_bucket_ratio, wanted.bucket_step_px)
        for size in buckets.sizes:
            self._models.latent_shape(size)
        return buckets

    def _job(self, plan: EncodePlan) -> EncodeJob:
        arguments = self._arguments
        return EncodeJob(
            source=ShardsSource(arguments.shards_uri, plan, arguments.captions_uri),
            encoder=EncoderSettings(
                pretrained=self._pretrained,
                caption_length=self._models.caption_length,
                features=self._vision,
                **arguments.model_dump(include={"batch_size", "caption_embeddings", "precision", "features_side"}),
            ),
            uri=arguments.latents_uri,
            plan_digest=self.latents.digest,
            workers=arguments.workers,
        )

    def _encode(self, job: EncodeJob, planned: list[PlannedShard]) -> list[LatentsRecord]:
        finished = self.latents.finished(LatentsRecord)
        known = [finished[shard.name] for shard in planned if shard.name in finished]
        missing = [shard for shard in planned if shard.name not in finished]
        done = sum(record.shard.listed.rows for record in known)
        progress = Progress("encode", sum(shard.rows for shard in planned), "rows", done=done)
        for record in chain(known, encode_shards(job, missing, progress.advance)):
            check_shard(record, self._models.scaling_factor, self._models.shift_factor)
            finished[record.shard.listed.name] = record
        return [finished[shard.name] for shard in planned]

    def _describe(self, artifact: Artifact, job: EncodeJob, planned: list[PlannedShard]) -> DescriptorsManifest:
        """Describe the training pictures, also those whose latents a limit leaves to the training."""
        artifact.begin()
        records = artifact.finished(DescriptorsRecord)
        missing = [shard for shard in planned if file_name(shard.name) not in records]
        progress = Progress("describe", sum(shard.rows for shard in missing), "pictures")
        encoder = replace(job.encoder, features=self._describer)
        job = replace(job, encoder=encoder, uri=artifact.storage.uri, plan_digest=artifact.digest, describes=True)
        records |= {record.name: record for record in encode_shards(job, missing, progress.advance)}
        files = [records[file_name(shard.name)] for shard in planned]
        return DescriptorsManifest(
            plan_digest=artifact.digest,
            model=self._describer.name,
            model_digest=folder_digest(self._describer),
            samples=sum(file.rows for file in files),
            repeated=repeated_captions(job.source),
            files=tuple(files),
        )

    def _identity(self) -> Identity:
        settings = self._arguments.deciding(self._arguments.names(Decides.CONTENT))
        vision = {"vision": folder_digest(self._vision)} if self._vision else {}
        captions = {"captions": self._captions_digest} if self._captions_digest else {}
        return settings | {"shards": self._source_digest, "models": self._models.identity()} | vision | captions


def _json(model: Model) -> bytes:
    return model.model_dump_json(indent=1).encode()
