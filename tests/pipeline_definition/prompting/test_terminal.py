"""What a terminal would show, read back from what is sent to it."""

import io
import re

import pytest
from PIL import Image

from pipeline_definition.prompting.terminal import has_colours, rendered

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
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, False),
    ],
)
def test_a_terminal_without_colours_is_known_by_its_variables(environment: dict[str, str], expected: bool) -> None:
    assert has_colours(environment) is expected


def test_blocks_show_two_pixels_in_each_character() -> None:
    lines = rendered(file_of(PICTURE), 80).splitlines()
    assert len(lines) == 4
    for top, line in enumerate(lines):
        cells = re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+)m\x1b\[48;2;(\d+);(\d+);(\d+)m▀", line)
        shown = [tuple(map(int, cell)) for cell in cells]
        assert shown == [PICTURE.getpixel((x, 2 * top)) + PICTURE.getpixel((x, 2 * top + 1)) for x in range(8)]  # type: ignore[operator]
        assert line.endswith("\x1b[0m")


def test_blocks_never_exceed_the_terminals_width() -> None:
    wide = Image.new("RGB", (300, 100))
    lines = rendered(file_of(wide), 40).splitlines()
    assert {line.count("▀") for line in lines} == {40}
    assert len(lines) == 7


def test_any_picture_format_is_shown() -> None:
    for form in ("PNG", "JPEG", "WEBP"):
        file = io.BytesIO()
        PICTURE.save(file, form)
        assert rendered(file.getvalue(), 10)
