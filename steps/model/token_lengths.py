"""How many token ids a caption has for each text encoder of a model. Imports no torch.

Reads <folder>/{text_encoder*,tokenizer*}/; writes nothing.
"""

from pathlib import Path
from typing import Final

from params.families import CONFIG_FILE, Family
from steps.model.json_object import read_object

# T5 knows no longest text, and its tokenizers' own limit is larger (Stable Diffusion 3's pipeline takes as many).
MAX_TOKENS: Final = 256


def token_lengths(folder: Path, family: Family) -> dict[str, int]:
    """Return token ids of a caption by text encoder, by its positions or its tokenizer, which may be there alone."""
    lengths = {}
    for tokenizer, encoder in family.text.items():
        if encoder in family.optional and not (folder / tokenizer).is_dir():
            continue
        is_lacking = encoder in family.optional and not (folder / encoder).is_dir()
        length = None if is_lacking else read_object(folder / encoder / CONFIG_FILE).get("max_position_embeddings")
        stated = length or read_object(folder / tokenizer / "tokenizer_config.json")["model_max_length"]
        lengths[encoder] = min(MAX_TOKENS, int(stated))
    return lengths
