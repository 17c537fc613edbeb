"""Url table to verified WebDataset shards.

Reads the url table (parquet, CSV or TSV: an address and a caption for each row) and downloads the pictures; or reads
existing shards or a folder of pictures (--source). Writes shards straight to --shards-uri, and the
manifest, last, to the output `shards`.

    python -m steps download --url-table s3://BUCKET/urls/ --shards-uri s3://BUCKET/shards
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from params.arguments import parse
from params.layout import MANIFEST_FILE, SHARDS
from params.programs import DownloadArguments
from steps.artifact import publish
from steps.container import Cluster, Container
from steps.data.collecting.collection import Collection
from steps.data.shards.guarded_downloader import ShardMaker
from steps.data.shards.shard_pool import ShardPool, cluster_pool, host_pool
from steps.data.shards.shards_artifact import ShardsManifest
from steps.progress import Progress

PoolOf = Callable[[ShardMaker, Callable[[int], None]], AbstractContextManager[ShardPool]]


def main(argv: list[str]) -> int:
    """Run the program: the first host of a job leads, the others lend themselves to it."""
    arguments = parse(DownloadArguments, argv, "download")
    container = Container()
    cluster = container.cluster()
    if not cluster.is_head:
        from steps.ray_cluster import join

        join(cluster, container.job_name, arguments.host_wait_s)
        return 0
    manifest = download(arguments, cluster, container.job_name)
    publish(container.output_dir(SHARDS), {MANIFEST_FILE: manifest.model_dump_json(indent=1).encode()})
    ledger = manifest.ledger
    if ledger.uncaptioned or ledger.set_aside:
        print(f"{ledger.uncaptioned} samples have no caption; left unread, at no row's cost: {ledger.set_aside}")
    print(
        f"{ledger.kept} of {ledger.rows} rows became samples ({ledger.sample_yield:.3f} of those that filters left);"
        f" filtered: {ledger.filtered}; failed: {ledger.failed}; treated: {ledger.treated}"
    )
    return 0


def download(arguments: DownloadArguments, cluster: Cluster, job_name: str) -> ShardsManifest:
    """Make the shards that are missing; return the manifest of all of them."""
    if len(cluster.hosts) == 1:
        return _download(arguments, lambda maker, count: host_pool(maker, arguments.processes, count))
    from steps.ray_cluster import leading

    # The others wait for this host, although nothing may be left to do; and they share the work on the whole table.
    with leading(cluster, job_name, arguments.host_wait_s):
        return _download(arguments, lambda maker, count: nullcontext(cluster_pool(maker, arguments.processes, count)))


def _download(arguments: DownloadArguments, pool_of: PoolOf) -> ShardsManifest:
    collection = Collection(arguments)
    shards = collection.finished()
    total, left = collection.table.rows, collection.rows_left(shards)
    done, sick_hosts = total - left, dict[str, str]()
    progress = Progress("download", total, "rows", done=done)
    collection.artifact.begin()
    if left:
        # A row is counted when it is fetched, where its worker says so, else with its shard.
        fetched = in_shards = 0

        def count(new_fetched: int, more_in_shards: int = 0) -> None:
            nonlocal fetched, in_shards
            fetched, in_shards = max(fetched, new_fetched), in_shards + more_in_shards
            progress.set(min(done + max(fetched, in_shards), total - 1))

        with pool_of(collection.maker(), count) as pool:
            progress.troubles = sick_hosts = pool.health.sick
            collection.collect(pool, shards, lambda rows: count(0, rows))
    for cause, words in collection.table.oddities.examples.items():
        print(f"{cause}, for example: {words}", flush=True)
    progress.set(total)
    return collection.manifest(shards).model_copy(update={"sick_hosts": sick_hosts})
