"""img2dataset's downloader with a guard: safe fetching, and shards that count only when they were read back.

img2dataset fetches with urllib: any scheme, any address (the instance's credentials too), any redirect, any size, and a
time-out that every byte starts anew. It has no hook, so `download_image_with_retry`, which returns a url's body or why
there is none, is replaced while a shard is made. Threads, samples' layout and statistics are img2dataset's own.
"""

import io
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import fsspec
import pyarrow as pa

from params.programs import DownloadArguments
from steps.data.causes import Cause, FetchError
from steps.data.fetching.address import AddressGuard
from steps.data.fetching.fetch import Fetcher
from steps.data.fetching.host_names import HostNames
from steps.data.fetching.stored_pictures import StoredPictures
from steps.data.shards.blocklist import Blocklist
from steps.data.shards.row_checks import boxes_to_blur
from steps.data.shards.shards_artifact import VerifiedShard
from steps.data.shards.verification import verify_shard
from steps.data.storage import Storage
from steps.data.tables.row_files import CAPTION, CAPTIONS, URL
from steps.data.tables.url_table import TableSlice

Fetched = tuple[int, io.BytesIO | None, str | None]

# Digits of the shard's number in keys and file names: params.layout.SHARD_PATTERN.
SHARD_DIGITS: Final = 5


class ShardMaker:
    """Makes one shard at a time. Pickled once for each worker process, where img2dataset is then imported."""

    def __init__(self, arguments: DownloadArguments, blocklist: Blocklist) -> None:
        self._settings, self._uri, self._blocklist = arguments, arguments.shards_uri, blocklist

    @property
    def limit_s(self) -> float:
        """The most that a shard can take, in seconds: twice what it does if no row is answered in its time."""
        settings = self._settings
        row_s = settings.timeout_s * (settings.retries + 1) + settings.max_retry_after_s
        return 60 + 2 * row_s * (1 + settings.samples_per_shard / settings.threads)

    def prepare(self, on_row: Callable[[], None], names_file: Path) -> None:
        """Import img2dataset and set it up; processes of a host share what is in `names_file`."""
        settings = self._settings
        from PIL import Image

        from steps.data.shards.picture_reader import FetchedPicture, PictureReader
        from steps.data.shards.shard_writer import Downloader, OrderedShardWriter

        # Pillow's own guard, before a header's word costs memory.
        Image.MAX_IMAGE_PIXELS = settings.max_image_megapixels * 10**6
        OrderedShardWriter.on_row = staticmethod(on_row)
        self._source: Fetcher | StoredPictures
        if settings.source == "urls":
            guard = AddressGuard(settings.allowed_hosts, HostNames(names_file), self._blocklist.hosts)
            self._source = Fetcher(settings, guard)
        else:
            self._source = StoredPictures(settings.url_table, settings.max_body_mb << 20)
        self._picture = FetchedPicture
        self._reader = PictureReader(settings, self._blocklist.has_look)
        self._downloader: Any = Downloader(
            sample_writer_class=OrderedShardWriter,
            resizer=self._reader,
            thread_count=settings.threads,
            save_caption=True,
            extract_exif=False,
            output_folder=self._uri,
            column_list=[CAPTION, URL, *([CAPTIONS] if settings.captions == "all" else [])],
            timeout=settings.timeout_s,
            number_sample_per_shard=settings.samples_per_shard,
            oom_shard_count=SHARD_DIGITS,
            compute_hash="sha256",
            verify_hash_type=None,
            encode_format="jpg",
            retries=settings.retries,
            user_agent_token=None,
            disallowed_header_directives=None,
        )

    def make(self, rows: TableSlice) -> VerifiedShard:
        """Make these rows' shard, once prepared, and read it back; it counts once the collection has recorded it.

        Raises UnverifiedShardError for differing files, and others.
        """
        storage = Storage(self._uri)
        self._reader.measured.clear()
        all_captions = self._settings.captions == "all"
        with _arrow_file(rows, all_captions) as address, _fetching(lambda key, url: self._fetch(rows, key, url)):
            self._downloader.download_shard((rows.index, address))
        return verify_shard(storage, rows.index, len(rows.urls), self._reader.measured)

    def _fetch(self, rows: TableSlice, key: int, url: str) -> Fetched:
        """Stand in for img2dataset's `download_image_with_retry`: an exception here would lose the whole shard."""
        try:
            body = self._source.fetch(url)
            if self._blocklist.has(body):
                return key, None, Cause.BLOCKED_PICTURE.value
            return key, self._picture(body, key, boxes_to_blur(self._settings, rows, key, body)), None
        except FetchError as error:
            return key, None, error.cause
        except Exception:
            traceback.print_exc()
            return key, None, Cause.UNEXPECTED.value


@contextmanager
def _fetching(fetch: Callable[[int, str], Fetched]) -> Iterator[None]:
    import img2dataset.downloader as module

    original = module.download_image_with_retry
    module.download_image_with_retry = lambda row, **_: fetch(*row)
    try:
        yield
    finally:
        module.download_image_with_retry = original


@contextmanager
def _arrow_file(rows: TableSlice, all_captions: bool) -> Iterator[str]:
    """Hand over rows as img2dataset wants them, as an Arrow file, in this process's memory."""
    memory = fsspec.filesystem("memory")
    path = f"/url-tables/{uuid.uuid4().hex}.arrow"
    lists = [caption if isinstance(caption, list) else [caption or ""] for caption in rows.captions]
    columns = {
        CAPTION: pa.array([captions[0] for captions in lists], pa.string()),
        URL: pa.array([(url or "").strip() for url in rows.urls], pa.string()),
    }
    if all_captions:
        columns[CAPTIONS] = pa.array(lists, pa.list_(pa.string()))
    table = pa.table(columns)
    with memory.open(path, "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    try:
        yield f"memory:/{path}"
    finally:
        if memory.exists(path):
            memory.rm(path)
