"""Verified shards of the local world's pictures, as a download leaves them, without a download."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from PIL import Image

import steps
from shapes import captions, pictures
from steps.data.shards.shard_writer import OrderedShardWriter
from steps.data.shards.shards_artifact import Ledger, ShardsManifest, VerifiedShard, make_ledger
from steps.data.shards.verification import verify_shard
from steps.data.storage import Storage

PRETRAINED = Path(steps.__file__).parent.parent / "shapes" / "models" / "pretrained"
SIZE_PX = 64
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("caption", "key", "status", "sha256")),
        *((name, pa.int32()) for name in ("width", "height")),
    ]
)


def jpeg(caption: captions.Caption, width_px: int = SIZE_PX, height_px: int = SIZE_PX) -> bytes:
    """Return a picture as it lies in a shard."""
    buffer = io.BytesIO()
    picture = Image.fromarray(pictures.draw(caption, max(width_px, height_px))).resize((width_px, height_px))
    picture.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_shards(
    uri: str, sizes: list[int], size_px: int = SIZE_PX, step: int = 17, ratios: Sequence[float] = (1.0,)
) -> ShardsManifest:
    """Write shards of so many samples each; return their manifest. Pictures take turns in the ratios of their sides."""
    grid = captions.every()
    shards: list[VerifiedShard] = []
    number = 0
    for index, size in enumerate(sizes):
        rows = [grid[(number + row) * step % len(grid)] for row in range(size)]
        number += size
        shards.append(_write_shard(uri, index, rows, size_px, ratios))
    ledger: Ledger = make_ledger(shards, {}, number, number)
    return ShardsManifest(
        plan_digest="plan",
        table_digest="table",
        image_size_px=size_px,
        resize_mode="center_crop" if ratios == (1.0,) else "keep_ratio",
        ledger=ledger,
        shards=tuple(shards),
    )


def sides_of(shorter_px: int, ratio: float) -> tuple[int, int]:
    """Return width and height of a picture."""
    return (round(shorter_px * ratio), shorter_px) if ratio > 1 else (shorter_px, round(shorter_px / ratio))


def _write_shard(
    uri: str, index: int, rows: list[captions.Caption], size_px: int, ratios: Sequence[float]
) -> VerifiedShard:
    storage = Storage(uri)
    storage.make()
    writer = OrderedShardWriter(index, uri, True, 5, SCHEMA, "jpg")
    for row, caption in enumerate(rows):
        key = f"{index:05d}{row:03d}"
        width, height = sides_of(size_px, ratios[row % len(ratios)])
        picture = jpeg(caption, width, height)
        digest = hashlib.sha256(picture).hexdigest()
        meta: dict[str, object] = {"caption": caption.text(), "key": key, "status": "success", "sha256": digest}
        meta |= {"width": width, "height": height}
        writer.write(picture, key, caption.text(), meta)
    writer.close()
    statistics = {"count": len(rows), "successes": len(rows), "status_dict": {"success": len(rows)}}
    storage.write(f"{index:05d}_stats.json", json.dumps(statistics).encode())
    return verify_shard(storage, index, len(rows))
