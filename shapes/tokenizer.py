"""Makes the tokenizer of the small models: CLIP's byte-level BPE, in which each word of the captions is one token.

Reads captions; writes, through `save`, a folder that CLIPTokenizer.from_pretrained loads. Any other word falls apart
into bytes, so that every caption in every script has tokens of its own.
`python -m shapes train-models` runs it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
WORD_END: Final = "</w>"
# A caption of the grid needs 13. More than it needs costs quality: with 48 the shapes' UNet reached a CLIP score of
# 0.84 where it reached 0.87 with 16.
MAX_TOKENS: Final = 16


def train(captions: Sequence[str]) -> CLIPTokenizer:
    """Return a tokenizer whose merges make one token of each word of the captions.

    The vocabulary is laid out as OpenAI's: 256 bytes, 256 bytes that end a word, the merges, start, end. The library's
    trainer finds the merges, but keeps only the bytes that it saw, and an unknown byte would read as the end token.
    """
    trained = CLIPTokenizer().train_new_from_iterator([list(captions)], vocab_size=2**16, show_progress=False)
    merges: list[Any] = json.loads(trained.backend_tokenizer.to_str())["model"]["merges"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = [*alphabet, *(byte + WORD_END for byte in alphabet), *("".join(merge) for merge in merges), START, END]
    return CLIPTokenizer(
        vocab={entry: index for index, entry in enumerate(dict.fromkeys(entries))},
        merges=[tuple(merge) for merge in merges],
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=MAX_TOKENS,
    )


def save(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the folder: the library's own files, and vocab.json and merges.txt as stable-diffusion-2-base has them."""
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))
