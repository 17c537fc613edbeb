import json
from pathlib import Path

import pytest

from params.heldout import is_heldout
from shapes import captions, pictures
from steps.data.encoding import reference as module
from steps.data.encoding.buckets import buckets_of
from steps.data.encoding.decoding import ShardsSource
from steps.data.encoding.plan import Selection, make_plan, summarize
from steps.data.encoding.reference import write_reference_shard
from steps.data.encoding.samples import read_table
from steps.data.storage import Storage
from steps.evaluation.reference import Reference
from tests.steps.data.shapes_shards import write_shards

SQUARE = buckets_of(64, 1.0, 8)
SELECTION = Selection(0.3, SQUARE)


def test_evaluation_reads_the_held_out_pictures_from_all_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, target = str(tmp_path / "shards"), tmp_path / "reference"
    manifest = write_shards(uri, [40, 40])
    tables = [read_table(Storage(uri), shard.name) for shard in manifest.shards]
    plan = make_plan(
        [table.name for table in tables], [summarize(table, SELECTION) for table in tables], SELECTION, 100
    )
    count = len(plan.heldout)
    source = ShardsSource(uri, plan)
    monkeypatch.setattr(module, "SAMPLES_PER_SHARD", count - 3)
    shards = [write_reference_shard(str(target), source, index) for index in range(2)]
    assert [shard.samples for shard in shards] == [count - 3, 3]
    described = {"resolution_px": 64, "shards": [shard.model_dump() for shard in shards]}
    (target / "manifest.json").write_text(json.dumps(described))
    reference = Reference(target)
    texts = [text for table in tables for text in table.captions if is_heldout(text, 0.3)]
    assert reference.captions == texts and len(reference) == count
    drawn = pictures.draw(captions.parse(texts[-1]), 64)
    assert abs(reference.read([count - 1])[0].astype(int) - drawn.astype(int)).mean() < 8
    assert write_reference_shard(str(target), source, 0) == shards[0]
