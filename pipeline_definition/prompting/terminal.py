"""A picture in the terminal, in whatever way the terminal can.

Reads the variables that terminals set about themselves; returns text to print. Protocols:
kitty https://sw.kovidgoyal.net/kitty/graphics-protocol/ , iTerm2 https://iterm2.com/documentation-images.html ;
otherwise two pixels for each character, in 24-bit colour.
"""

import base64
import io
from collections.abc import Callable, Mapping
from typing import Final, Literal, get_args

import numpy as np
from PIL import Image

Protocol = Literal["kitty", "iterm2", "blocks"]
PROTOCOLS: Final[tuple[Protocol, ...]] = get_args(Protocol)

# What a kitty escape may carry at once.
KITTY_CHUNK: Final = 4096
UPPER_HALF: Final = "▀"
RESET: Final = "\x1b[0m"
_KITTY_PROGRAMS: Final = ("ghostty",)
_ITERM2_PROGRAMS: Final = ("iTerm.app", "WezTerm", "mintty", "rio")


def protocol_of(environment: Mapping[str, str]) -> Protocol | None:
    """Return how this terminal shows pictures; None for one that shows text alone."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if term in ("", "dumb") or "NO_COLOR" in environment:
        return None
    # A multiplexer passes none of the protocols on by itself.
    if "TMUX" in environment or term.startswith(("screen", "tmux")):
        return "blocks"
    if "KITTY_WINDOW_ID" in environment or "kitty" in term or program in _KITTY_PROGRAMS:
        return "kitty"
    if program in _ITERM2_PROGRAMS:
        return "iterm2"
    return "blocks"


def rendered(content: bytes, protocol: Protocol, columns: int) -> str:
    """Return the text that makes a terminal this many columns wide show a picture file."""
    with Image.open(io.BytesIO(content)) as image:
        return _RENDERERS[protocol](image.convert("RGB"), columns)


def _kitty(image: Image.Image, columns: int) -> str:
    """Send a PNG in chunks: f=100 is PNG, a=T shows it, m=1 says that more follows."""
    text, escapes = base64.b64encode(_png(image)).decode("ascii"), ""
    for start in range(0, len(text), KITTY_CHUNK):
        keys, end = "" if start else "f=100,a=T,", start + KITTY_CHUNK
        escapes += f"\x1b_G{keys}m={int(end < len(text))};{text[start:end]}\x1b\\"
    return escapes + "\n"


def _iterm2(image: Image.Image, columns: int) -> str:
    content = _png(image)
    text = base64.b64encode(content).decode("ascii")
    return f"\x1b]1337;File=inline=1;size={len(content)};preserveAspectRatio=1:{text}\x07\n"


def _blocks(image: Image.Image, columns: int) -> str:
    """Show two pixels in each character: the upper half's colour before it, the lower half's behind."""
    width = min(columns, image.width)
    height = 2 * max(1, round(image.height * width / image.width / 2))
    pixels = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    cell = "\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m" + UPPER_HALF
    pairs = np.concatenate([pixels[::2], pixels[1::2]], axis=2).tolist()
    return "".join("".join(cell.format(*pair) for pair in line) + RESET + "\n" for line in pairs)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


_RENDERERS: Final[Mapping[Protocol, Callable[[Image.Image, int], str]]] = {
    "kitty": _kitty,
    "iterm2": _iterm2,
    "blocks": _blocks,
}
