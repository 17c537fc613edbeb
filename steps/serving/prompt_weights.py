"""Weights in a prompt, and the parts in which a text encoder reads a long one.

The notation is that of AUTOMATIC1111's web UI (modules/prompt_parser.py there): `(word)` counts 1.1 times as much,
`[word]` 1 / 1.1 times, `(word:1.3)` 1.3 times; brackets nest and need no end; `\\(` is a bracket itself; BREAK begins a
part. What else it knows (`[a:b:0.5]`, `[a|b]`, `a AND b`, `<lora:...>`) is refused, never read as words.
"""

import functools
import itertools
import re
from collections.abc import Callable
from typing import Final

# Of 75 tokens each: some 2,000 characters, the most that an endpoint takes unless it is told otherwise.
MAX_PARTS: Final = 8
MAX_WEIGHT: Final = 10.0
FACTORS: Final = {"(": 1.1, "[": 1 / 1.1}
_MARKS: Final = re.compile(
    r"(?s)\\(?P<escaped>.)|(?P<opens>[(\[])|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<closes>[)\]])|[^\\()\[\]:]+|."
)
_BREAK: Final = re.compile(r"\s*\bBREAK\b\s*")
_UNREAD: Final = re.compile(r"(?<!\\)\[[^\[\]]*?(?:\||:\s*[\d.]+\s*\])|<\w+:[^<>]*>|\bAND\b")


@functools.lru_cache(256)
def weighted_texts(prompt: str) -> tuple[tuple[str, float], ...]:
    """Return a prompt's texts without their marks, each with its weight; neighbours have different ones."""
    texts: list[tuple[str, float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def weigh(start: int, factor: float) -> None:
        texts[start:] = [(text, weight * factor) for text, weight in texts[start:]]

    for mark in _MARKS.finditer(prompt):
        bracket = "[" if mark["closes"] == "]" else "("
        if mark["opens"]:
            opened[mark["opens"]].append(len(texts))
        elif (mark["closes"] or mark["weight"]) and opened[bracket]:
            weigh(opened[bracket].pop(), float(mark["weight"] or FACTORS[bracket]))
        else:
            texts.append((mark["escaped"] or mark[0], 1.0))
    for bracket, start in ((bracket, start) for bracket, starts in opened.items() for start in starts):
        weigh(start, FACTORS[bracket])
    runs = itertools.groupby(texts, key=lambda text: text[1])
    return tuple(("".join(text for text, _ in run), weight) for weight, run in runs)


def is_plain(prompt: str) -> bool:
    """Whether a prompt says the same without weights and parts."""
    return weighted_texts(prompt) in ((), ((prompt, 1.0),)) and not _BREAK.search(prompt)


def unreadable(prompt: str) -> str:
    """Return what of a prompt's notation is not read, in one line; empty where all is."""
    if unread := _UNREAD.search(prompt):
        return f"does not read {unread[0][:40]!r}; brackets that are meant as such are \\[ and \\]"
    wrong = [weight for _, weight in weighted_texts(prompt) if not 0 <= weight <= MAX_WEIGHT]
    return f"reads weights from 0 to {MAX_WEIGHT:g}, not {wrong[0]:g}" if wrong else ""


def split(prompt: str, ids: Callable[[str], list[int]], room: int) -> list[list[tuple[int, float]]]:
    """Return a prompt in parts, at least one, of at most `room` token ids with weights; `ids` tokenizes a text."""
    parts: list[list[tuple[int, float]]] = [[]]
    for text, weight in weighted_texts(prompt):
        for number, words in enumerate(_BREAK.split(text)):
            if number and parts[-1]:
                parts.append([])
            for token in ids(words):
                if len(parts[-1]) == room:
                    parts.append([])
                parts[-1].append((token, weight))
    return [part for part in parts if part] or [[]]
