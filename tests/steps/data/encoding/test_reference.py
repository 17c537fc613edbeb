from __future__ import annotations

import json
from pathlib import Path

from shapes import captions, pictures
from steps.data.encoding import reference as module
from steps.data.encoding.buckets import square
from steps.data.encoding.decoding import ShardsSource
from steps.data.encoding.plan import Selection, make_plan, summarize
from steps.data.encoding.reference import reference_spans, write_reference_shard
from steps.data.encoding.samples import is_heldout, read_table
from steps.data.storage import Storage
from steps.evaluation.reference import Reference
from tests.steps.data.shapes_shards import write_shards

SQUARE = square(64)
SELECTION = Selection(0.3, SQUARE)


def test_evaluation_reads_the_held_out_pictures(tmp_path: Path) -> None:
    uri, target = str(tmp_path / "shards"), tmp_path / "reference"
    manifest = write_shards(uri, [40, 40])
    tables = [read_table(Storage(uri), shard.name) for shard in manifest.shards]
    plan = make_plan(
        [table.name for table in tables], [summarize(table, SELECTION) for table in tables], SELECTION, 100
    )
    count = len(plan.heldout)
    source = ShardsSource(uri, plan)
    shards = [
        write_reference_shard(str(target), source, 0, 0, count - 3),
        write_reference_shard(str(target), source, 1, count - 3, 3),
    ]
    described = {"resolution_px": 64, "shards": [shard.model_dump() for shard in shards]}
    (target / "manifest.json").write_text(json.dumps(described))
    reference = Reference(target)
    texts = [text for table in tables for text in table.captions if is_heldout(text, 0.3)]
    assert reference.captions == texts and len(reference) == count
    drawn = pictures.draw(captions.parse(texts[-1]), 64)
    assert abs(reference.read([count - 1])[0].astype(int) - drawn.astype(int)).mean() < 8
    again = write_reference_shard(str(target), source, 0, 0, count - 3)
    assert again == shards[0]


def test_pictures_are_cut_into_shards() -> None:
    assert list(reference_spans(2 * module.SAMPLES_PER_SHARD + 5)) == [(0, 0, 1000), (1, 1000, 1000), (2, 2000, 5)]
    assert list(reference_spans(0)) == []
