"""Stored pictures to long captions, beside the captions that they came with, which stay as they are.

Reads the shards' manifest (input `shards`), a vision-language model (input `captioner`, as transformers saves it) and
the pictures under --shards-uri. Writes captions straight to --captions-uri, and the manifest, last, to the output
`captions`.

    python -m steps recaption --shards-uri s3://B/shards --captions-uri s3://B/captions
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util import ActorPool

from params.arguments import parse
from params.layout import CAPTIONER, CAPTIONS, MANIFEST_FILE, SHARDS
from params.model import Decides
from params.programs import RecaptionArguments
from steps.artifact import Artifact, publish
from steps.container import Container
from steps.data.encoding.ray_encoding import ENCODER_CPUS, step_error, workers_of
from steps.data.encoding.written_captions import CaptionsManifest, CaptionsRecord, source_of, write_captions
from steps.data.shards.shards_artifact import VerifiedShard, read_shards_manifest
from steps.device import gpus_to_lend
from steps.errors import StepError
from steps.model.digest import folder_digest
from steps.progress import Progress
from steps.ray_cluster import join, leading


def main(argv: list[str]) -> int:
    """Run the program: the first host of a job leads, the others lend themselves to it."""
    arguments, container = parse(RecaptionArguments, argv, "recaption"), Container()
    cluster, gpus = container.cluster(), gpus_to_lend(container)
    if not cluster.is_head:
        join(cluster, container.job_name, arguments.host_wait_s, gpus=gpus)
        return 0
    recaption = Recaption(arguments, container.input_dir(SHARDS) / MANIFEST_FILE, container.input_dir(CAPTIONER))
    files = recaption.captions.published()
    # The other hosts wait for a head, also where there is nothing left to do.
    if files is None or len(cluster.hosts) > 1:
        with leading(cluster, container.job_name, arguments.host_wait_s, gpus=gpus):
            files = files or recaption.run()
    publish(container.output_dir(CAPTIONS), files)
    return 0


class Recaption:
    """The captioning of one set."""

    def __init__(self, arguments: RecaptionArguments, manifest: Path, captioner: Path) -> None:
        """Read what goes in. Raises StepError where something is missing."""
        shards, self._source_digest = read_shards_manifest(manifest)
        self._arguments, self._captioner, self._model = arguments, captioner, folder_digest(captioner)
        self._shards = [one for one in shards.shards if one.samples]
        identity = arguments.deciding(arguments.names(Decides.CONTENT)) | {"captioner": self._model}
        # Of a set that has grown, the captions of its former shards stay.
        self.captions = Artifact(arguments.captions_uri, identity, extent=[self._source_digest])

    def run(self) -> dict[str, bytes]:
        """Caption what is missing, on the Ray cluster that is up; return the manifest, by name. Raises StepError."""
        self.captions.begin()
        sources = {shard.name: source_of(shard) for shard in self._shards}
        recorded = self.captions.finished(CaptionsRecord).values()
        finished = {record.shard: record for record in recorded if sources.get(record.shard) == record.source}
        done = sum(record.samples for record in finished.values())
        progress = Progress("recaption", sum(shard.samples for shard in self._shards), "pictures", done=done)
        missing = [shard for shard in self._shards if shard.name not in finished]
        for record in self._written(missing, progress.advance):
            finished[record.shard] = record
        records = [finished[name] for name in sources]
        failed = sum(record.failed for record in records)
        manifest = CaptionsManifest(
            plan_digest=self.captions.digest,
            source_manifest_digest=self._source_digest,
            captioner_digest=self._model,
            prompt=self._arguments.prompt,
            written=sum(record.samples for record in records) - failed,
            failed=failed,
        )
        print(f"captions: {manifest.written} written; {failed} samples keep their original one alone", flush=True)
        return {MANIFEST_FILE: manifest.model_dump_json(indent=1).encode()}

    def _written(self, shards: Sequence[VerifiedShard], on_pictures: Callable[[int], None]) -> Iterator[CaptionsRecord]:
        """Yield the record of each shard when its captions are written: batches go to whichever captioner is free."""
        held: dict[str, dict[str, str]] = defaultdict(dict)
        place = (self._arguments.captions_uri, self.captions.parts_digest)
        try:
            for shard, captions in self._captioned(shards):
                held[shard.name] |= captions
                on_pictures(len(captions))
                if len(held[shard.name]) == shard.samples:
                    yield write_captions(*place, shard, held.pop(shard.name))
        except ray.exceptions.RayError as error:
            raise step_error(error) from error
        if held:
            raise StepError(f"recaption: {next(iter(held))} has fewer samples than the manifest says; download again")

    def _captioned(self, shards: Sequence[VerifiedShard]) -> Iterator[tuple[VerifiedShard, dict[str, str]]]:
        step = self._arguments.batch_size
        pool = self._pool(sum(-(-shard.samples // step) for shard in shards))
        for batch in ((shard, first) for shard in shards for first in range(0, shard.samples, step)):
            if not pool.has_free():
                yield pool.get_next_unordered()
            pool.submit(_caption, batch)
        while pool.has_next():
            yield pool.get_next_unordered()

    def _pool(self, batches: int) -> ActorPool:
        from steps.data.encoding.captioner import Captioner

        workers, gpus = workers_of(self._arguments.workers)
        share = {"num_gpus": 1 if gpus else 0, "num_cpus": ENCODER_CPUS}
        # A captioner that dies is started again, and what it was asked for is asked again.
        actor = ray.remote(max_restarts=-1, max_task_retries=-1, **share)(Captioner)
        return ActorPool([actor.remote(self._captioner, self._arguments) for _ in range(min(batches, workers))])


def _caption(captioner: Any, batch: tuple[VerifiedShard, int]) -> Any:
    return captioner.caption.remote(*batch)
