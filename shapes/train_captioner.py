"""Trains the small captioner: it reads a picture of a shape and writes its long caption.

    python -m shapes train-captioner --out shapes/captioner [--steps N] [--seed 0]

Reads the small CLIP; the data draw themselves. Writes, whole or not at all, a folder as transformers' auto classes load
it, in float16: GIT (Wang et al. 2022, arXiv:2205.14100), whose decoder reads what a vision tower sees, and then the
caption so far.
"""

import shutil
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import BertTokenizer, CLIPModel, GitConfig, GitForCausalLM, GitProcessor, GitVisionConfig

from shapes import captions, picture_set, train_models
from shapes.train_clip import augment

BATCH_SIZE: Final = 64
CLIP: Final = Path(__file__).parent / "models" / train_models.CLIP_FOLDER
MAX_TOKENS: Final = 48


def train(out: Path, steps: int, seed: int) -> float:
    """Train, write OUT, return which share of held-out pictures' captions is right. Raises ValueError for no steps."""
    if steps < 1:
        raise ValueError(f"steps {steps}: must be at least 1")
    grid = captions.every()
    seen, heldout = captions.divided(grid)
    tokenizer = tokenizer_of([caption.long_text() for caption in grid])
    torch.manual_seed(seed)
    model, pixels = build(tokenizer), picture_set.load(seen)
    tokens = tokenizer([caption.long_text() for caption in seen], padding=True, return_tensors="pt")["input_ids"]

    def loss(rows: Tensor) -> Tensor:
        labels = tokens[rows].masked_fill(tokens[rows] == tokenizer.pad_token_id, -100)
        with torch.autocast("cpu", torch.bfloat16):
            batch = augment(picture_set.to_models(pixels[rows]))
            found: Tensor = model(input_ids=tokens[rows], pixel_values=batch, labels=labels).loss
        return found

    generator = torch.Generator().manual_seed(seed)
    batches = (torch.randint(len(seen), (BATCH_SIZE,), generator=generator) for _ in range(steps))
    picture_set.fit(model, batches, steps, loss, "captioner", weight_decay=0.05)
    draft = out.with_name(f"{out.name}.draft")
    model.half().save_pretrained(draft)
    GitProcessor(train_models.image_processor(), tokenizer).save_pretrained(draft)
    figures = {"megabytes": (draft / "model.safetensors").stat().st_size / 1e6, "example": heldout[0].long_text()}
    right = share_right(draft, heldout)
    page = Path(__file__).with_name("captioner_readme.md").read_text()
    (draft / "README.md").write_text(page.format(**figures, steps=steps, seed=seed, right=right, count=len(heldout)))
    shutil.rmtree(out, ignore_errors=True)
    draft.rename(out)
    print(f"wrote {out}: {right:.1%} of the held-out pictures' captions are right to the letter")
    return right


def tokenizer_of(texts: list[str]) -> BertTokenizer:
    """Return a tokenizer that makes one token of each word and mark of the texts."""
    words = sorted({word for text in texts for word in text.replace(".", " .").replace(",", " ,").split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    return BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)}, model_max_length=MAX_TOKENS)


def build(tokenizer: BertTokenizer) -> Any:
    """Return the untrained captioner with the small CLIP's eyes: with untrained ones it mistook a quarter."""
    eyes = CLIPModel.from_pretrained(CLIP).float().vision_model
    sizes = {name: getattr(eyes.config, name) for name, of in GitVisionConfig().to_dict().items() if type(of) is int}
    ends = {"bos": tokenizer.cls_token_id, "eos": tokenizer.sep_token_id, "pad": tokenizer.pad_token_id}
    config = GitConfig(
        vision_config=sizes,
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **{f"{name}_token_id": token for name, token in ends.items()},
    )
    model = GitForCausalLM(config)
    model.set_attn_implementation("eager")
    model.git.image_encoder.vision_model.load_state_dict(eyes.state_dict(), strict=False)
    return model.train()


@torch.no_grad()
def share_right(folder: Path, drawn: list[captions.Caption]) -> float:
    """Return for which share of pictures the captioner of a folder writes the long caption, to the letter."""
    model, processor = GitForCausalLM.from_pretrained(folder).float().eval(), GitProcessor.from_pretrained(folder)
    batch = processor(images=[picture_set.as_stored(caption) for caption in drawn], return_tensors="pt")
    written = model.generate(**batch, max_new_tokens=MAX_TOKENS - 1, do_sample=False)
    texts = processor.batch_decode(written, skip_special_tokens=True)
    right: list[bool] = [text == caption.long_text() for text, caption in zip(texts, drawn, strict=True)]
    return sum(right) / len(right)
