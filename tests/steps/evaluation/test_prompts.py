"""Which captions are drawn, from which seeds, and in which batches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.errors import StepError
from steps.evaluation.captions import SEEDS, Captions, batches, choose_prompts, picture_seed

CAPTIONS = [f"caption {row}" for row in range(40)]


def heldout(captions: list[str] = CAPTIONS) -> Captions:
    return Captions(captions, range(len(captions)), is_heldout=True)


def test_every_prompt_is_another_heldout_caption_and_knows_its_picture() -> None:
    prompts = choose_prompts(heldout(), 30, seed=0)
    assert [prompt.index for prompt in prompts] == list(range(30))
    assert len({prompt.reference_row for prompt in prompts}) == 30
    assert all(prompt.caption == CAPTIONS[prompt.reference_row or 0] for prompt in prompts)


def test_a_smaller_sample_is_the_beginning_of_a_larger_one() -> None:
    assert choose_prompts(heldout(), 12, seed=3) == choose_prompts(heldout(), 30, seed=3)[:12]


def test_a_stated_seed_stays_with_its_caption() -> None:
    stated = Captions(CAPTIONS, [None] * 40, [1000 + row for row in range(40)])
    for prompt in choose_prompts(stated, 30, seed=0):
        assert prompt.caption == f"caption {prompt.seed - 1000}"
        assert prompt.reference_row is None


def test_too_few_captions_in_a_file_are_refused() -> None:
    with pytest.raises(StepError, match=r"captions: 3 in the file, at least 8 are needed; take a longer one"):
        choose_prompts(Captions(CAPTIONS[:3], [None] * 3), 100, seed=0)


def test_the_order_of_the_table_does_not_decide_what_is_judged() -> None:
    first, second = (choose_prompts(heldout(), 20, seed) for seed in (0, 1))
    assert [prompt.caption for prompt in first] != CAPTIONS[:20]
    assert {prompt.caption for prompt in first} != {prompt.caption for prompt in second}


def test_fewer_captions_than_asked_for_are_all_used() -> None:
    assert sorted(prompt.caption for prompt in choose_prompts(heldout(), 1000, seed=0)) == sorted(CAPTIONS)


def test_too_few_captions_are_refused_with_the_setting_to_change() -> None:
    with pytest.raises(StepError, match=r"7 held-out captions, at least 8.*encode\.heldout_fraction"):
        choose_prompts(heldout(CAPTIONS[:7]), 100, seed=0)


@given(st.integers(0, 2**63), st.lists(st.integers(0, 30_000), min_size=2, unique=True))
def test_pictures_of_one_evaluation_never_share_a_seed(seed: int, indices: list[int]) -> None:
    seeds = {picture_seed(seed, index) for index in indices}
    assert len(seeds) == len(indices)
    assert all(0 <= value < SEEDS for value in seeds)


@given(st.integers(1, 50), st.integers(1, 9), st.integers(1, 7))
def test_workers_share_the_batches_of_a_single_worker(samples: int, batch_size: int, world_size: int) -> None:
    prompts = choose_prompts(heldout([f"{row}" for row in range(50)]), samples, seed=0) if samples >= 8 else []
    alone = list(batches(prompts, batch_size))
    shared = [batch for rank in range(world_size) for batch in batches(prompts, batch_size, rank, world_size)]
    assert sorted(shared, key=lambda batch: batch[0].index) == alone
    assert [prompt for batch in alone for prompt in batch] == prompts
