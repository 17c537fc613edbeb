from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor

from shapes import captions, train_captioner


def test_the_folder_is_replaced_as_a_whole_and_loads_by_the_auto_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse = captions.every()[::40]
    monkeypatch.setattr(captions, "every", lambda: sparse)
    out = tmp_path / "captioner"
    (out / "left_over").mkdir(parents=True)
    right = train_captioner.train(out, steps=2, seed=0)
    assert 0 <= right <= 1 and [path.name for path in tmp_path.iterdir()] == ["captioner"]
    assert not (out / "left_over").exists() and f"{right:.1%} get the right" in (out / "README.md").read_text()
    with safe_open(out / "model.safetensors", "pt") as tensors:
        kinds = {tensors.get_tensor(key).dtype for key in tensors.keys()}  # noqa: SIM118
    assert kinds <= {torch.float16, torch.int64}
    assert type(AutoModelForImageTextToText.from_pretrained(out)).__name__ == "GitForCausalLM"
    tokenizer = AutoProcessor.from_pretrained(out).tokenizer
    for caption in sparse:
        words = tokenizer(caption.long_text())["input_ids"]
        assert tokenizer.decode(words, skip_special_tokens=True) == caption.long_text()
        assert tokenizer.unk_token_id not in words and len(words) < train_captioner.MAX_TOKENS


def test_a_long_caption_tells_what_its_short_one_tells_and_no_two_are_the_same() -> None:
    texts = {caption.long_text(): caption for caption in captions.every()}
    assert len(texts) == len(captions.every())
    for text, caption in texts.items():
        assert all(word in text for word in caption) and len(text) > len(caption.text())
