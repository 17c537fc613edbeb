"""What a terminal would show, read back from what is sent to it."""

import base64
import io
import re

import pytest
from PIL import Image

from pipeline_definition.prompting.terminal import PROTOCOLS, protocol_of, rendered

PICTURE = Image.frombytes("RGB", (8, 8), bytes(8 * 8 * 3))
for column in range(8):
    for row in range(8):
        PICTURE.putpixel((column, row), (32 * column, 32 * row, 128))


def file_of(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "foot"}, "blocks"),
        ({"TERM": "xterm-256color"}, "blocks"),
        ({"TERM": "screen-256color", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, "blocks"),
        ({"TERM": "dumb"}, None),
        ({}, None),
        ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, None),
    ],
)
def test_the_terminal_is_known_by_its_variables(environment: dict[str, str], expected: str | None) -> None:
    assert protocol_of(environment) == expected


def test_kitty_gets_the_png_in_chunks_and_is_told_which_is_the_last() -> None:
    noisy = Image.effect_noise((200, 200), 90).convert("RGB")
    sent = rendered(file_of(noisy), "kitty", 80)
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", sent)
    assert len(chunks) > 2
    assert chunks[0][0] == "f=100,a=T,m=1"
    assert [keys for keys, _ in chunks[1:]] == ["m=1"] * (len(chunks) - 2) + ["m=0"]
    assert all(len(text) <= 4096 for _, text in chunks)
    shown = Image.open(io.BytesIO(base64.b64decode("".join(text for _, text in chunks))))
    assert shown.tobytes() == noisy.tobytes()


def test_iterm2_gets_the_file_with_its_size() -> None:
    found = re.fullmatch(
        r"\x1b\]1337;File=inline=1;size=(\d+);[^:]*:([^\x07]*)\x07\n", rendered(file_of(PICTURE), "iterm2", 80)
    )
    assert found is not None
    content = base64.b64decode(found[2])
    assert (len(content), Image.open(io.BytesIO(content)).tobytes()) == (int(found[1]), PICTURE.tobytes())


def test_blocks_show_two_pixels_in_each_character() -> None:
    lines = rendered(file_of(PICTURE), "blocks", 80).splitlines()
    assert len(lines) == 4
    for top, line in enumerate(lines):
        cells = re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+)m\x1b\[48;2;(\d+);(\d+);(\d+)m▀", line)
        shown = [tuple(map(int, cell)) for cell in cells]
        assert shown == [PICTURE.getpixel((x, 2 * top)) + PICTURE.getpixel((x, 2 * top + 1)) for x in range(8)]  # type: ignore[operator]
        assert line.endswith("\x1b[0m")


def test_blocks_never_exceed_the_terminals_width() -> None:
    wide = Image.new("RGB", (300, 100))
    lines = rendered(file_of(wide), "blocks", 40).splitlines()
    assert {line.count("▀") for line in lines} == {40}
    assert len(lines) == 7


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_any_picture_format_is_shown(protocol: str) -> None:
    for form in ("PNG", "JPEG", "WEBP"):
        file = io.BytesIO()
        PICTURE.save(file, form)
        assert rendered(file.getvalue(), protocol, 10)  # type: ignore[arg-type]
