from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data.order import Rows
from steps.data.plan import EncodePlan, make_plan, summarize, train_rows
from steps.data.samples import SampleTable, caption_hash, is_heldout
from tests.steps.data.tables import table_of

captions = st.lists(
    st.lists(st.sampled_from([f"a caption {i}" for i in range(30)]), max_size=12), min_size=1, max_size=6
)


def plan_of(tables: list[SampleTable], fraction: float, limit: int) -> EncodePlan:
    summaries = [summarize(table, fraction) for table in tables]
    return make_plan([table.name for table in tables], summaries, fraction, limit)


def rows_of(plan: EncodePlan, tables: list[SampleTable], split: str, first: int, count: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for source, place, part in plan.locate(split, first, count):
        train = split == "train"
        rows: Rows = train_rows(tables[source], plan.heldout_fraction) if train else plan.heldout_rows(source)
        found += [(source, row) for row in rows[place : place + part].tolist()]
    return found


@given(captions, st.sampled_from([0.0, 0.1, 0.5, 0.9]), st.integers(0, 20))
@settings(max_examples=150, deadline=None)
def test_every_sample_is_in_one_split_or_dropped_and_captions_do_not_straddle(
    texts: list[list[str]], fraction: float, limit: int
) -> None:
    tables = [table_of(index, captions) for index, captions in enumerate(texts)]
    plan = plan_of(tables, fraction, limit)
    everything = [(source, row) for source, table in enumerate(tables) for row in range(len(table.keys))]
    train = rows_of(plan, tables, "train", 0, plan.counts["train"])
    heldout = rows_of(plan, tables, "heldout", 0, plan.counts["heldout"])
    assert train == sorted(set(train)) and heldout == sorted(set(heldout))
    assert not set(train) & set(heldout)
    assert len(train) + len(heldout) + plan.dropped_heldout_samples == len(everything)
    assert len(heldout) <= limit
    assert not any(is_heldout(texts[source][row], fraction) for source, row in train)
    assert all(is_heldout(texts[source][row], fraction) for source, row in heldout)


@given(captions, st.integers(1, 7), st.integers(1, 5), st.data())
@settings(max_examples=100, deadline=None)
def test_a_range_of_rows_is_that_range_of_the_whole(
    texts: list[list[str]], blocks: int, rows_per_block: int, data: st.DataObject
) -> None:
    tables = [table_of(index, captions) for index, captions in enumerate(texts)]
    plan = plan_of(tables, 0.3, 100)
    for split, count in plan.counts.items():
        whole = rows_of(plan, tables, split, 0, count)
        first = data.draw(st.integers(0, count))
        part = data.draw(st.integers(0, count - first))
        assert rows_of(plan, tables, split, first, part) == whole[first : first + part]
    planned = list(plan.shards(blocks * rows_per_block, rows_per_block))
    for split, count in plan.counts.items():
        shards = [shard for shard in planned if shard.split == split]
        assert [shard.first_row for shard in shards] == [sum(s.rows for s in shards[:i]) for i in range(len(shards))]
        assert sum(shard.rows for shard in shards) == count
        assert all(shard.rows == blocks * rows_per_block for shard in shards[:-1])
        assert all(rows == rows_per_block for shard in shards for rows in shard.block_rows[:-1])


def test_over_the_limit_the_smallest_hashes_are_held_out_and_the_rest_is_dropped() -> None:
    texts = [f"caption {number}" for number in range(40)]
    plan = plan_of([table_of(0, texts)], 0.5, 3)
    hashes = sorted(caption_hash(text) for text in texts)
    kept = [caption_hash(texts[row]) for row in plan.heldout_rows(0).tolist()]
    assert sorted(kept) == hashes[:3]
    assert plan.counts["train"] == 40 - 3 - plan.dropped_heldout_samples


def test_shards_are_named_after_their_split() -> None:
    plan = plan_of([table_of(0, [f"caption {number}" for number in range(20)])], 0.4, 100)
    names = [shard.name for shard in plan.shards(8, 4)]
    assert names[0] == "train-00000.tar" and "heldout-00000.tar" in names
