"""What a captioner makes of a model's words, with models of the kinds that people put into the prefix."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPTokenizer,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from params.programs import RecaptionArguments
from shapes import captions
from steps.data.encoding.captioner import Captioner, caption_of
from steps.errors import StepError
from tests.shapes.stored import as_stored, long_text
from tests.steps.data.shapes_shards import PRETRAINED

CAPTIONER = PRETRAINED.parent.parent / "captioner"
CHAT = "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}"
CHAT += "{% endif %}{% endfor %}{% endfor %} caption"


def drawn(count: int) -> list[captions.Caption]:
    heldout = [caption for caption in captions.every() if captions.is_heldout(caption.text())]
    return heldout[:: len(heldout) // count][:count]


def pictures(chosen: list[captions.Caption]) -> list[Image.Image]:
    return [Image.fromarray(as_stored(caption)) for caption in chosen]


def settings(**changes: Any) -> RecaptionArguments:
    asked = {"prompt": "none", "precision": "float32", "max_caption_tokens": 47, "shards_uri": "", "captions_uri": ""}
    return RecaptionArguments.model_validate(asked | changes)


def test_the_small_captioner_reads_pictures_that_no_training_saw() -> None:
    chosen = drawn(60)
    written = Captioner(CAPTIONER, settings()).write(pictures(chosen))
    right = [text == long_text(caption) for text, caption in zip(written, chosen, strict=True)]
    assert sum(right) >= 0.9 * len(right)


def test_a_prompt_that_the_model_takes_none_of_is_refused_by_name() -> None:
    with pytest.raises(StepError, match=r"recaption\.prompt 'Say it\.': .* try none"):
        Captioner(CAPTIONER, settings(prompt="Say it.")).write(pictures(drawn(1)))


@pytest.mark.parametrize(
    ("text", "ended", "expected"),
    [
        ("  a red\n circle ", True, "a red circle"),
        ("A circle. It is red. Behind it th", False, "A circle. It is red."),
        ("一个圆。它是", False, "一个圆。"),
        ("a circle that never", False, ""),
        (" . ", True, ""),
        ("", False, ""),
    ],
)
def test_what_a_model_wrote_is_a_caption_or_nothing(text: str, ended: bool, expected: str) -> None:
    assert caption_of(text, ended) == expected


def write_chat_model(folder: Path) -> Path:
    """Write an untrained LLaVA of some thousand weights, whose processor has a chat template."""
    base = CLIPTokenizer.from_pretrained(PRETRAINED / "tokenizer")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=base.backend_tokenizer, pad_token="!", eos_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="full",
        chat_template=CHAT,
        num_additional_image_tokens=1,
    )
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**size, image_size=32, patch_size=16),
        text_config=LlamaConfig(**size, vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=128),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_model_with_a_chat_template_is_asked_through_it_and_its_prompt_is_no_part_of_the_caption(
    tmp_path: Path,
) -> None:
    asked = settings(prompt="describe a picture", max_caption_tokens=7)
    captioner = Captioner(write_chat_model(tmp_path), asked)
    seen: dict[str, Any] = {}
    generate = captioner._model.generate

    def recorded(**inputs: Any) -> Any:
        seen.update(inputs)
        seen["written"] = generate(**inputs)
        return seen["written"]

    captioner._model.generate = recorded
    shown = pictures(drawn(3))
    together = captioner.write(shown)
    length = seen["input_ids"].shape[1]
    assert "describe</w>a</w>picture" in captioner._processor.decode(seen["input_ids"][0])
    assert seen["pixel_values"].shape[0] == 3 and seen["written"].shape[1] == length + 7
    assert together == [captioner.write([one])[0] for one in shown]


def test_pickles_and_code_of_a_models_own_are_refused(tmp_path: Path) -> None:
    folder = write_chat_model(tmp_path / "pickle")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(StepError, match=r"pickle: cannot be loaded: .*safetensors"):
        Captioner(folder, settings())
    folder = write_chat_model(tmp_path / "code")
    config = json.loads((folder / "config.json").read_text())
    own = {
        "model_type": "someones",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForImageTextToText": "own.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config | own))
    (folder / "own.py").write_text("raise SystemExit('ran')")
    with pytest.raises(StepError, match=r"code: cannot be loaded"):
        Captioner(folder, settings())
