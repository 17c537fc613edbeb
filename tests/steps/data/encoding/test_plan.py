from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from params.heldout import caption_hash, is_heldout
from steps.data.encoding.buckets import Buckets, buckets_of
from steps.data.encoding.plan import Block, EncodePlan, Part, PlanFile, Selection, make_plan, summarize, train_rows
from steps.data.encoding.samples import SampleTable
from steps.data.latents.order import Rows
from steps.errors import StepError
from tests.steps.data.shard_tables import table_of

SQUARE = buckets_of(64, 1.0, 8)
captions = st.lists(
    st.lists(st.sampled_from([f"a caption {i}" for i in range(30)]), max_size=12), min_size=1, max_size=6
)


def plan_of(
    tables: list[SampleTable], fraction: float, limit: int, buckets: Buckets = SQUARE, at_least: int = 1
) -> EncodePlan:
    selection = Selection(fraction, buckets)
    summaries = [summarize(table, selection) for table in tables]
    return make_plan([table.name for table in tables], summaries, selection, limit, at_least)


def rows_of(plan: EncodePlan, tables: list[SampleTable], split: str, first: int, count: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for source, _, bucket, place, part in plan.locate(split, first, count):
        rows: Rows = plan.heldout_rows(bucket, source)
        if split == "train":
            rows = train_rows(tables[source], plan.selection)[bucket]
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
    kept = [caption_hash(texts[row]) for row in plan.heldout_rows(0, 0).tolist()]
    assert sorted(kept) == hashes[:3]
    assert plan.counts["train"] == 40 - 3 - plan.dropped_heldout_samples


def test_shards_are_named_after_their_split() -> None:
    plan = plan_of([table_of(0, [f"caption {number}" for number in range(20)])], 0.4, 100)
    names = [shard.name for shard in plan.shards(8, 4)]
    assert names[0] == "train-00000.tar" and "heldout-00000.tar" in names


shaped = st.lists(st.lists(st.sampled_from([64, 70, 100, 130, 250]), max_size=12), min_size=1, max_size=6)


@given(shaped, st.integers(1, 12), st.integers(1, 6), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_every_sample_is_in_one_bucket_and_every_shard_has_one(
    widths: list[list[int]], at_least: int, rows_per_shard: int, rows_per_block: int
) -> None:
    tables = [table_of(index, [f"{index} {row}" for row in range(len(of))], of) for index, of in enumerate(widths)]
    buckets = buckets_of(64, 4.0, 16)
    plan = plan_of(tables, 0.3, 100, buckets, at_least)
    for split, count in plan.counts.items():
        rows = rows_of(plan, tables, split, 0, count)
        assert len(rows) == len(set(rows)) == int(plan.bucket_counts(split).sum())
        shards = [shard for shard in plan.shards(rows_per_shard, rows_per_block) if shard.split == split]
        assert [shard.first_row for shard in shards] == [sum(s.rows for s in shards[:i]) for i in range(len(shards))]
        assert [shard.bucket for shard in shards] == sorted(shard.bucket for shard in shards)
        for shard in shards:
            for source, row in rows_of(plan, tables, split, shard.first_row, shard.rows):
                table = tables[source]
                assert plan.selection.buckets.nearest(table.widths[[row]], table.heights[[row]])[0] == shard.bucket
    assert sum(plan.counts.values()) == sum(map(len, widths))
    sizes = plan.bucket_counts("train")
    assert len(sizes) == 1 or int(sizes.min()) >= at_least


@given(shaped, st.integers(1, 6), st.integers(1, 4), st.data())
@settings(max_examples=100, deadline=None)
def test_every_source_comes_once_and_what_is_dealt_out_of_it_makes_the_blocks(
    widths: list[list[int]], rows_per_shard: int, rows_per_block: int, data: st.DataObject
) -> None:
    tables = [table_of(index, [f"{index} {row}" for row in range(len(of))], of) for index, of in enumerate(widths)]
    plan = plan_of(tables, 0.3, 100, buckets_of(64, 4.0, 16))
    shards = [shard for shard in plan.shards(rows_per_shard, rows_per_block) if data.draw(st.booleans(), shard.name)]
    dealt = list(plan.dealt(shards))
    sources = [{part.source for _, part in parts} for parts in dealt]
    assert sources == [{source} for source in sorted({source for one in sources for source in one})]
    found: dict[Block, list[Part]] = {}
    for block, part in (one for parts in dealt for one in parts):
        found.setdefault(block, []).append(part)
    for shard in shards:
        rows = [part for number in range(len(shard.block_rows)) for part in found.pop((shard.name, number))]
        assert sum(part.rows for part in rows) == shard.rows
        assert (rows[0].source, rows[0].place) == plan.locate(shard.split, shard.first_row, 1)[0][0::3]
        assert all(one.source <= other.source for one, other in pairwise(rows))
    assert not found


def test_a_plan_file_holds_the_whole_plan() -> None:
    tables = [table_of(index, [f"{index} {row}" for row in range(9)], [64, 130, 250] * 3) for index in range(2)]
    plan = plan_of(tables, 0.3, 100, buckets_of(64, 4.0, 16))
    written = PlanFile(**dict(plan), plan_digest="digest", rows_per_shard=8, rows_per_block=4).model_dump_json()
    again = PlanFile.model_validate_json(written)
    assert (again.sources, again.selection, again.counts) == (plan.sources, plan.selection, plan.counts)
    assert list(again.shards(8, 4)) == list(plan.shards(8, 4))


def test_shards_that_do_not_tell_the_sides_of_their_pictures_have_no_buckets() -> None:
    table = replace(table_of(0, ["a"]), heights=np.zeros(1, np.int64))
    assert summarize(table, Selection(0.0, SQUARE)).train_samples == (1,)
    with pytest.raises(StepError, match=r"00000\.tar: its table does not tell the pictures' sides.*download again"):
        summarize(table, Selection(0.0, buckets_of(64, 4.0, 16)))


@given(captions, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_of_pictures_with_several_captions_training_sees_neither_a_held_out_picture_nor_its_caption(
    pictures: list[list[str]], fraction: float
) -> None:
    several = [list(dict.fromkeys(of)) for of in pictures if of]
    table = table_of(0, [caption for of in several for caption in of])
    firsts = [of[0] for of in several for _ in of]
    table = replace(table, first_captions=firsts)
    plan = plan_of([table], fraction, 1000)
    trained = [row for _, row in rows_of(plan, [table], "train", 0, plan.counts["train"])]
    held = [row for _, row in rows_of(plan, [table], "heldout", 0, plan.counts["heldout"])]
    assert sorted(table.captions[row] for row in held) == sorted(of[0] for of in several if is_heldout(of[0], fraction))
    assert not [
        row for row in trained if is_heldout(table.captions[row], fraction) or is_heldout(firsts[row], fraction)
    ]
    kept = [of for of in several if not is_heldout(of[0], fraction)]
    assert len(trained) == sum(not is_heldout(caption, fraction) for of in kept for caption in of)
