"""The settings of Download: a url table, shards or a folder of pictures to verified WebDataset shards."""

from typing import Literal

from pydantic import Field

from params.filters import with_filters
from params.model import Model, added


@with_filters
class SourceSettings(Model):
    """What Download reads and stores, and which rows of it."""

    source: Literal["urls", "webdataset", "pictures"] = "urls"
    """What url_table is. `urls`: a table of addresses (parquet, CSV, TSV, JSON, JSON Lines or text); `webdataset`: a
    prefix of WebDataset shards; `pictures`: a folder of pictures and their captions, or of Hugging Face's
    parquet. [content]"""
    url_column: str = "url"
    """Column of the table that holds the image's address. [extent]"""
    caption_column: str = "caption"
    """Column of the table that holds the caption (LAION names it TEXT); of stored pictures, the key in metadata or
    .json. [extent]"""
    column_names: tuple[str, ...] = added(())
    """Names of the columns of CSV and TSV files whose first line is data already, as Conceptual 12M's is. [extent]"""
    tsv_quotes: bool = added(False)
    """Fields of TSV files may stand in quotes, as pandas writes them; else a quote is a character. [extent]"""
    captions: Literal["first", "random", "all"] = added("first")
    """Of a picture with several captions: the `first`; a `random` one, by captions_seed and row; or `all`: it is stored
    once, and each makes a sample to train on. `all` joins the captions of a repeated url. [content]"""
    captions_seed: int = added(0, ge=0)
    """Which caption `random` draws. [extent]"""
    caption_lines: bool = added(False)
    """Each line of a caption file (.txt, .caption) is a caption of its own: a list. [extent]"""
    keep_uncaptioned: bool = added(False)
    """Keep pictures without a caption, with an empty one; else they are lost as `no_caption`. [extent]"""
    image_size_px: int = Field(256, ge=16, le=4096)
    """Side of the stored picture, in pixels (phase 1 of Stable Diffusion 2 trains at 256). [content]"""
    resize_mode: Literal["center_crop", "keep_ratio"] = "center_crop"
    """`center_crop`: square; `keep_ratio`: shorter side at image_size_px. Never letterboxed. [content]"""


class DownloadSettings(SourceSettings):
    """How Download works."""

    score_columns: tuple[str, ...] = ()
    """SCORE=COLUMN for columns with names of their own: aesthetic, watermark, unsafe, similarity, width, height or
    language. The names of LAION, COYO and DataComp are known without it. [extent]"""
    dedup: Literal["url", "exact", "perceptual"] = "exact"
    """What counts as a duplicate, of which the first in the table is kept: the same url; also the same bytes; also the
    same look (perceptual hash and colours, which every picture's row of the table of samples has). [extent]"""
    max_hash_distance: int = Field(0, ge=0, le=3)
    """Two pictures look the same when their perceptual hashes differ in at most this many of 64 bits. [extent]"""
    blocklist_uri: str = ""
    """Text file of what is never taken: lines of host:, sha256: or phash: and a value; empty: none. [place]"""
    jpeg_quality: int = Field(95, ge=1, le=100)
    """JPEG quality of the stored pictures (img2dataset's default). [content]"""
    samples_per_shard: int = Field(10_000, ge=1)
    """Rows of the table for one shard: 10,000 at 256 px are about 300 MB (img2dataset's advice for S3). [extent]"""
    max_rows: int = Field(0, ge=0)
    """Only this many rows of the table, from the first on; 0: all of them. [extent]"""
    processes: int = Field(0, ge=0)
    """Download processes for each host; 0: one for each core. [running]"""
    threads: int = Field(64, ge=1)
    """Connections for each process (measured: 2 processes x 64 threads are 1.8 times 1 x 16). [running]"""
    timeout_s: float = Field(10.0, gt=0)
    """Limit for one picture, from connect to the last byte. [running]"""
    retries: int = Field(1, ge=0)
    """Retries after a failure that may pass (time-out, 5xx). [running]"""
    max_retry_after_s: float = added(30.0, ge=0)
    """Longest Retry-After (with 429 or 503) that a row waits for; meanwhile no row of its host is asked for. Rows of a
    host that wants to be left alone for longer fail at once. [running]"""
    connections_per_host: int = added(0, ge=0)
    """Connections of a process to one host at a time; 0: as many as there are threads. [running]"""
    contact: str = added("", pattern=r"^([!-'*-~ ]*(https?://|@)[!-'*-~ ]+)?$")
    """Page or mail address for the User-Agent, which some hosts demand (Wikimedia). [running]"""
    ignored_opt_outs: tuple[Literal["x-robots-tag", "tdm-reservation", "content-usage", "content-signal"], ...] = added(
        ()
    )
    """Headers by which an owner reserves a picture, and which are not to be heeded; empty: all are heeded. [extent]"""
    verify_hash: str = added("", pattern=r"^(.+=(sha256|md5))?$")
    """COLUMN=sha256 or COLUMN=md5: pictures whose bytes do not have the column's hash are left out. [extent]"""
    blur_column: str = added("")
    """Column of boxes to be blurred, faces for instance: lists of x_min, y_min, x_max, y_max as fractions of the stored
    picture (img2dataset's --bbox_col). [content]"""
    max_body_mb: int = Field(32, ge=1)
    """A body larger than this is dropped: one row lost, not the host's memory. [extent]"""
    max_image_megapixels: int = Field(100, ge=1)
    """A picture that would decode to more than this is dropped before it is decoded. [extent]"""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts (host or host:port) that may be fetched although their address is private. [running]"""
    min_yield: float = Field(0.5, ge=0.0, le=1.0)
    """The step fails when a smaller fraction of the rows that the filters leave became samples. [running]"""
    top_up: int = Field(0, ge=0)
    """Rounds of trying again what failed for a reason that can pass. Raised by one, a finished download tries only what
    is still missing. [extent]"""
    host_wait_s: float = added(600.0, gt=0)
    """How long a host waits for the job's other hosts: then the job ends and names those that are missing. [running]"""


class DownloadArguments(DownloadSettings):
    """`python -m steps download`: url table to WebDataset shards."""

    url_table: str
    """Where the url table is: s3:// address or path of a file or of a folder of them (see source). [place]"""
    shards_uri: str
    """Where the shards go: s3:// prefix. They are written there directly, never to a local disk. [place]"""
