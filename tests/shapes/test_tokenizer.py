from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from shapes import captions, tokenizer


@pytest.fixture(scope="module")
def small() -> CLIPTokenizer:
    return tokenizer.train([caption.text() for caption in captions.every()])


def test_each_word_of_the_captions_is_one_token(small: CLIPTokenizer) -> None:
    text = "a large pink heart in the centre on a cyan background"
    tokens = small.convert_ids_to_tokens(small(text)["input_ids"])
    assert tokens == [tokenizer.START, *(word + tokenizer.WORD_END for word in text.split()), tokenizer.END]


def test_a_word_of_no_caption_is_spelt_in_bytes(small: CLIPTokenizer) -> None:
    assert small.decode(small("a red möwe")["input_ids"], skip_special_tokens=True) == "a red möwe"


def test_every_caption_fits_the_text_tower(small: CLIPTokenizer) -> None:
    encoded = small([caption.text() for caption in captions.every()])["input_ids"]
    assert max(len(ids) for ids in encoded) <= tokenizer.MAX_TOKENS
    assert len({tuple(ids) for ids in encoded}) == 3920


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8))
def test_no_prompt_holds_an_unknown_that_would_end_it_early(small: CLIPTokenizer, text: str) -> None:
    ids = small(text.replace("<", ""))["input_ids"]
    assert ids.index(small.eos_token_id) == len(ids) - 1


def test_the_end_token_is_the_last_entry_and_the_padding(small: CLIPTokenizer) -> None:
    assert small.eos_token_id == len(small) - 1 == small.pad_token_id
    padded = small("a ring", padding="max_length", truncation=True)["input_ids"]
    assert len(padded) == tokenizer.MAX_TOKENS == small.model_max_length


def test_the_saved_folder_loads_and_means_the_same(small: CLIPTokenizer, tmp_path: Path) -> None:
    tokenizer.save(small, tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    text = "a small red star on the left, painted by a 3rd person"
    assert loaded(text)["input_ids"] == small(text)["input_ids"]
    assert {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"} <= {
        f.name for f in tmp_path.iterdir()
    }
