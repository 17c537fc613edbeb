"""What weights mean is what their notation says, however brackets lie in each other; no word is lost or made up."""

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.serving.prompt_weights import MAX_WEIGHT, is_plain, split, unreadable, weighted_texts

WORDS = st.text(st.characters(exclude_characters="\\()[]:", exclude_categories=["Cs"]), min_size=1, max_size=5)
# Text and weight of each leaf, and how it is written.
Written = tuple[str, list[tuple[str, float]]]


def heavier(inner: list[Written], brackets: str, factor: float, end: str) -> Written:
    written = brackets[0] + "".join(text for text, _ in inner) + end
    return written, [(text, weight * factor) for _, leaves in inner for text, weight in leaves]


PROMPTS = st.recursive(
    WORDS.map(lambda word: (word, [(word, 1.0)])),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda of: heavier(of, "()", 1.1, ")")),
        st.lists(inner, min_size=1, max_size=3).map(lambda of: heavier(of, "[]", 1 / 1.1, "]")),
        st.tuples(st.lists(inner, min_size=1, max_size=3), st.sampled_from(["0", ".5", "1.3", "2."])).map(
            lambda of: heavier(of[0], "()", float(of[1]), f":{of[1]})")
        ),
    ),
    max_leaves=8,
)


def spread(texts: list[tuple[str, float]] | tuple[tuple[str, float], ...]) -> list[tuple[str, float]]:
    return [(letter, weight) for text, weight in texts for letter in text]


@given(st.lists(PROMPTS, max_size=4))
def test_every_letter_has_the_product_of_its_brackets_weights(written: list[Written]) -> None:
    found = spread(weighted_texts("".join(text for text, _ in written)))
    expected = spread([leaf for _, leaves in written for leaf in leaves])
    assert [letter for letter, _ in found] == [letter for letter, _ in expected]
    assert all(math.isclose(one, two) for (_, one), (_, two) in zip(found, expected, strict=True))


@given(st.text(max_size=30))
def test_an_escaped_text_is_itself(text: str) -> None:
    escaped = re.sub(r"([\\()\[\]:])", r"\\\1", text)
    assert weighted_texts(escaped) == (((text, 1.0),) if text else ())


@given(st.text(st.sampled_from("ab \\()[]:.1"), max_size=30))
def test_any_text_is_read_and_neighbours_differ(text: str) -> None:
    found = weighted_texts(text)
    assert all(one[1] != two[1] for one, two in itertools.pairwise(found))
    # Letters stay, in their order: marks alone go.
    assert re.sub("[^ab]", "", "".join(words for words, _ in found)) == re.sub("[^ab]", "", text)
    if is_plain(text):
        assert found in ((), ((text, 1.0),))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("(unbalanced", [("unbalanced", 1.1)]),
        ("a) b]", [("a) b]", 1.0)]),
        ("(a)(b)", [("ab", 1.1)]),
        ("(a: 1.5 )", [("a", 1.5)]),
        ("a:1.5)", [("a:1.5)", 1.0)]),
        ("(4:3 wide:1.5)", [("4:3 wide", 1.5)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        (r"cat \(animal\)", [("cat (animal)", 1.0)]),
        ("([a)]", [("a", 1.0)]),
        ("trailing\\", [("trailing\\", 1.0)]),
    ],
)
def test_marks_in_odd_places(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert [(text, round(weight, 6)) for text, weight in weighted_texts(prompt)] == expected


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a [cat:dog:0.5] b", "[cat:dog:0.5]"),
        ("[dog:10]", "[dog:10]"),
        ("[cat|dog]", "[cat|"),
        ("cats AND dogs", "AND"),
        ("a <lora:ink:0.8>", "<lora:ink:0.8>"),
        ("(a:-1)", "not -1"),
        (f"(a:{MAX_WEIGHT + 1:g})", "not 11"),
        ("(" * 25 + "a", "not 10.8"),
    ],
)
def test_what_is_not_read_is_named(prompt: str, named: str) -> None:
    assert named in unreadable(prompt)


@pytest.mark.parametrize("prompt", ["", "a and b", r"\[a|b\]", "a | b", "ratio 4:3", "[(a:1.2) b]", "SAND", "<3"])
def test_what_only_looks_like_it_is_read(prompt: str) -> None:
    assert unreadable(prompt) == ""


def ids(text: str) -> list[int]:
    return [ord(letter) for letter in text if letter != " "]


@given(st.text(st.sampled_from("abc ()[]"), max_size=60), st.integers(1, 9))
def test_parts_hold_every_token_once_and_are_full_but_for_the_last(prompt: str, room: int) -> None:
    parts = split(prompt, ids, room)
    expected = [(token, weight) for text, weight in weighted_texts(prompt) for token in ids(text)]
    assert [token for part in parts for token in part] == expected
    assert all(len(part) == room for part in parts[:-1])
    assert len(parts) == max(1, math.ceil(len(expected) / room))


def test_break_begins_a_part_wherever_it_stands() -> None:
    parts = split("ab BREAK (cd BREAK e:2) BREAK BREAK", ids, 3)
    assert parts == [[(97, 1.0), (98, 1.0)], [(99, 2.0), (100, 2.0)], [(101, 2.0)]]
    assert not is_plain("a BREAK b") and is_plain("a BREAKER b")
