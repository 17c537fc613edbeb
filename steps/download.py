"""Url table to verified WebDataset shards.

Reads the url table (parquet: an address and a caption for each row) and what the addresses answer. Writes shards
straight to --shards-uri, and the manifest, last, to the output `shards`.

    python -m steps download --url-table s3://BUCKET/urls/ --shards-uri s3://BUCKET/shards
"""

from __future__ import annotations

import os
from pathlib import Path

from params.arguments import parse
from params.layout import MANIFEST_FILE, SHARDS
from params.programs import DownloadArguments
from steps.container import Container
from steps.data.collection import Collection
from steps.data.guarded_downloader import ShardMaker
from steps.data.shard_pool import HostPool
from steps.data.shards import ShardsManifest
from steps.progress import Progress


def main(argv: list[str]) -> int:
    """Run the program."""
    arguments = parse(DownloadArguments, argv, "download")
    manifest = download(arguments)
    write_manifest(manifest, Container().output_dir(SHARDS))
    ledger = manifest.ledger
    print(f"{ledger.kept} of {ledger.rows} rows became samples ({ledger.sample_yield:.3f}); failed: {ledger.failed}")
    return 0


def download(arguments: DownloadArguments) -> ShardsManifest:
    """Make the shards that are missing; return the manifest of all of them."""
    collection = Collection(arguments)
    shards = collection.finished()
    done = sum(shard.rows for shard in shards.values())
    progress = Progress("download", collection.table.rows, "rows", done=done)
    maker = ShardMaker(arguments, arguments.shards_uri, collection.plan_digest)
    processes = arguments.processes or os.cpu_count() or 1
    with HostPool(maker, processes, lambda rows: progress.set(min(done + rows, collection.table.rows - 1))) as pool:
        collection.collect(pool, shards, lambda rows: None)
    progress.set(collection.table.rows)
    return collection.manifest(shards)


def write_manifest(manifest: ShardsManifest, folder: Path) -> None:
    """Write the manifest whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{MANIFEST_FILE}.tmp"
    temporary.write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    temporary.replace(folder / MANIFEST_FILE)
