"""Shards that release 0.1.0 made: they are kept as they are, also where the settings have changed since.

It named a shard by its table and by all settings, thresholds and `max_rows` among them. Reads and writes
release_0_1.json under the shards prefix: the names of shards that were recognised once, and the limits under which
they were made. A name is recognised with the settings of now; with those of before a table grew or `max_rows` was
raised; and without filters.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import product
from typing import Any, Final

from params.filters import FILTERS
from params.layout import MANIFEST_FILE
from params.model import Decides
from params.programs import DownloadArguments
from steps.artifact import Identity, digest, from_text
from steps.data.shards.blocklist import Blocklist
from steps.data.shards.limits import Limits, limits_of
from steps.data.shards.shards_artifact import ShardRecord
from steps.data.storage import Storage

FILE: Final = "release_0_1.json"
_SELECTION: Final = ("dedup", "max_hash_distance", "top_up")
SETTINGS: Final = DownloadArguments.names(Decides.CONTENT, Decides.EXTENT) - set(_SELECTION)
"""What it named a shard by."""


def identity_of(settings: DownloadArguments, table_digest: str, blocklist: Blocklist) -> Identity:
    """Return what it named a shard by."""
    return settings.deciding(SETTINGS) | {
        "table": table_digest,
        "img2dataset": version("img2dataset"),
        "blocklist": [blocklist.digest, blocklist.max_distance if blocklist.digest else 0],
        "perceptual_hashes": settings.dedup == "perceptual",
    }


def whole_digest(settings: DownloadArguments, parts_digest: str) -> str:
    """Return what it called the artifact of these shards."""
    return digest([parts_digest, *(getattr(settings, name) for name in _SELECTION)])


def as_it_judged(settings: DownloadArguments) -> DownloadArguments:
    """Return the settings by which it judged rows: pictures were blown up, and captions could be empty."""
    return settings.model_copy(update={"upscale": True, "keep_uncaptioned": True})


def recognised(
    storage: Storage,
    records: Iterable[ShardRecord],
    settings: DownloadArguments,
    table_digest: str,
    blocklist: Blocklist,
    content_digest: str,
) -> dict[str, Limits]:
    """Return the limits under which its shards were made, by their name; `content_digest` is of what decides bytes."""
    rows: Counter[str] = Counter()
    for record in records:
        if not record.limits:
            rows[record.plan_digest] += record.shard.rows - sum(record.shard.retried.values())
    known: dict[str, Any] = _read_json(storage, FILE)
    unknown = {name: count for name, count in rows.items() if name not in known}
    found: dict[str, Any] = {}
    if unknown:
        tables = {table_digest, str(_read_json(storage, MANIFEST_FILE).get("table_digest", table_digest))}
        for one, table in product(_settings_of_before(settings, set(unknown.values())), tables):
            name = digest(identity_of(one, table, blocklist))
            if name in unknown:
                found[name] = {"content": content_digest, "limits": limits_of(as_it_judged(one), blocklist)}
    if found:
        storage.write(FILE, json.dumps(known | found, indent=1, sort_keys=True).encode())
    return {name: one["limits"] for name, one in (known | found).items() if one["content"] == content_digest}


def _settings_of_before(settings: DownloadArguments, rows: set[int]) -> Iterator[DownloadArguments]:
    defaults = {name: field.default for one in FILTERS if not one.measured for name, field in one.model_fields.items()}
    for filters, max_rows in product(({}, defaults), {settings.max_rows, 0, *rows}):
        yield settings.model_copy(update={**filters, "max_rows": max_rows})


def _read_json(storage: Storage, name: str) -> dict[str, Any]:
    try:
        return dict(from_text(storage.read(name).decode()) or {})
    except (FileNotFoundError, UnicodeDecodeError):
        return {}
