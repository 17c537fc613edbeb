"""Writes captions: a vision-language model of transformers looks at the pictures of shards, a batch at a time.

Greedy, so that a picture's caption depends on the picture, its batch and the settings alone.
"""

import io
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from params.programs import RecaptionArguments
from steps.data.encoding.encoder import DTYPES, worker_device
from steps.data.encoding.samples import read_samples, read_table
from steps.data.shards.shards_artifact import VerifiedShard
from steps.data.storage import Storage
from steps.errors import StepError
from steps.model.pretrained import LOCAL_SAFETENSORS, library, loaded

# What `prompt` says for a model that takes none.
NO_PROMPT: Final = "none"
SENTENCE_ENDS: Final = ".!?。！？"


class Captioner:
    """One model, on a GPU where its worker has one."""

    def __init__(self, folder: Path, arguments: RecaptionArguments) -> None:
        """Load the model. Raises StepError where it cannot be loaded."""
        self._arguments, self._device, self._dtype = arguments, worker_device(), DTYPES[arguments.precision]
        self._storage = Storage(arguments.shards_uri)
        self._table = lru_cache(2)(partial(read_table, self._storage))
        of, options = library("transformers"), {"local_files_only": True, "trust_remote_code": False}
        self._processor = loaded(folder, lambda: of.AutoProcessor.from_pretrained(folder, **options))
        # What is written follows the prompt: of a shorter one the padding comes first.
        self._processor.tokenizer.padding_side = "left"
        load, options = of.AutoModelForImageTextToText.from_pretrained, options | LOCAL_SAFETENSORS
        model = loaded(folder, lambda: load(folder, dtype=self._dtype, **options))
        self._model = model.to(self._device).eval()

    def caption(self, shard: VerifiedShard, first: int) -> tuple[VerifiedShard, dict[str, str]]:
        """Return a shard and captions of a batch of its samples, by key: of a picture with several captions, one."""
        table = self._table(shard.name)
        rows = np.sort(np.unique(table.keys, return_index=True)[1])
        rows = rows[first : first + self._arguments.batch_size]
        samples = list(read_samples(self._storage, table, rows))
        pictures = [Image.open(io.BytesIO(one.picture), formats=("JPEG",)).convert("RGB") for one in samples]
        keys = [sample.key for sample in samples]
        return shard, dict(zip(keys, self.write(pictures), strict=True))

    @torch.inference_mode()
    def write(self, pictures: list[Image.Image]) -> list[str]:
        """Return the caption of each picture; it may be empty. Raises StepError for an unfit prompt."""
        asked = self._asked(pictures).to(self._device, self._dtype)
        options = {"max_new_tokens": self._arguments.max_caption_tokens, "do_sample": False, "num_beams": 1}
        try:
            written = self._model.generate(**asked, **options)
        except ValueError as error:
            what = "this captioner cannot be asked so; try none"
            raise StepError(f"recaption.prompt {self._arguments.prompt!r}: {what}: {error}") from None
        if "input_ids" in asked and not self._model.config.is_encoder_decoder:
            written = written[:, asked["input_ids"].shape[1] :]
        ends = torch.tensor(self._model.generation_config.eos_token_id, device=written.device)
        ended = torch.isin(written, ends).any(dim=1).tolist()
        texts = self._processor.batch_decode(written, skip_special_tokens=True)
        return [caption_of(text, whole) for text, whole in zip(texts, ended, strict=True)]

    def _asked(self, pictures: list[Image.Image]) -> Any:
        prompt, processor = self._arguments.prompt, self._processor
        if prompt == NO_PROMPT:
            return processor(images=pictures, return_tensors="pt")
        if not getattr(processor, "chat_template", None):
            return processor(images=pictures, text=[prompt] * len(pictures), padding=True, return_tensors="pt")
        text = {"type": "text", "text": prompt}
        chats = [[{"role": "user", "content": [{"type": "image", "image": one}, text]}] for one in pictures]
        options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "processor_kwargs": {"padding": True}}
        return processor.apply_chat_template(chats, add_generation_prompt=True, **options)


def caption_of(text: str, ended: bool) -> str:
    """Return the caption in what a model wrote: whole sentences of one that did not end, and nothing without a word."""
    words = " ".join(text.split())
    caption = words if ended else words[: 1 + max(map(words.rfind, SENTENCE_ENDS))]
    return caption if any(map(str.isalnum, caption)) else ""
