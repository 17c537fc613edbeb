"""The page of the drawn pictures that are nearest to training pictures, side by side: one file, which needs no other.

Writes copies.html beside metrics.json. Captions are other people's words: they are escaped.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, Final, NamedTuple

from PIL import Image

from params.files import write_text
from params.layout import COPIES, COPIES_REAL, COPIES_REPEATED

SHOWN_PX: Final = 256
NAMES: Final = {
    COPIES: "pictures of the evaluation's prompts",
    COPIES_REPEATED: "pictures of the captions that training saw most often",
    COPIES_REAL: "real pictures that training never saw",
}
TEMPLATE: Final = Path(__file__).with_name("copies.html")


class ClosePair(NamedTuple):
    similarity: float
    prompt: str
    drawn: bytes
    caption: str
    trained: bytes
    key: str
    """Of the training sample."""


def write_page(path: Path, pairs: Sequence[ClosePair], entries: Mapping[str, Mapping[str, Any]], training: int) -> None:
    levels = {name: f"{entries[COPIES][name]:.4f}" for name in ("threshold", "normal", "copied")}
    rows = "".join(
        f"<tr><td>{NAMES[key]}<td>{_share(entry)}<td>{entry['pictures']:,}" for key, entry in entries.items()
    )
    cards = "".join(_card(pair, entries[COPIES]["threshold"]) for pair in pairs)
    page = Template(TEMPLATE.read_text(encoding="utf-8"))
    write_text(path, page.substitute(levels, rows=rows, cards=cards, pairs=len(pairs), training=f"{training:,}"))


def _share(entry: Mapping[str, Any]) -> str:
    return f"{entry['value']:.3%} ({entry['low']:.3%} to {entry['high']:.3%})"


def _card(pair: ClosePair, threshold: float) -> str:
    kind, word = (' class="copy"', "a copy: ") if pair.similarity >= threshold else ("", "")
    return f"""<figure{kind}><div><img alt="drawn" src="{_source(pair.drawn)}"><img alt="trained on"
src="{_source(pair.trained)}"></div><figcaption><b>{word}{pair.similarity:.4f}</b> {html.escape(pair.prompt)}<br>
<small>{html.escape(pair.caption)} (sample {html.escape(pair.key)})</small></figcaption></figure>
"""


def _source(content: bytes) -> str:
    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((SHOWN_PX, SHOWN_PX))
    shown = io.BytesIO()
    picture.save(shown, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(shown.getvalue()).decode()}"
