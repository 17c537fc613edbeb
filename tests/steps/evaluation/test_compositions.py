"""When a picture shows what a prompt asks, by what a detector found in it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.evaluation.compositions import COUNT, PLACES, SUITE, Composition, Found, places

LEFT, RIGHT, TOP = (0.0, 40.0, 20.0, 60.0), (80.0, 40.0, 100.0, 60.0), (40.0, 0.0, 60.0, 20.0)
DOG, CAT, SECOND_DOG = Found("dog", LEFT), Found("cat", RIGHT), Found("dog", TOP)
BLACK_DOG_WHITE_CAT = {DOG: "black", SECOND_DOG: "brown", CAT: "white"}


def asked(kind: str, *objects: str, **more: object) -> Composition:
    return Composition(kind, "", objects, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("composition", "found", "is_shown"),
    [
        (asked("object", "dog"), [DOG, CAT], True),
        (asked("object", "dog"), [CAT], False),
        (asked("two_objects", "dog", "cat"), [CAT, DOG], True),
        (asked("two_objects", "dog", "cat"), [DOG, SECOND_DOG], False),
        (asked(COUNT, "dog", count=2), [DOG, SECOND_DOG, CAT], True),
        (asked(COUNT, "dog", count=2), [DOG], False),
        (asked(COUNT, "dog", count=2), [DOG, SECOND_DOG, Found("dog", RIGHT)], False),
        (asked("colour", "dog", colours=("black",)), [DOG], True),
        (asked("colour", "dog", colours=("white",)), [DOG], False),
        # The surest one is asked, not any.
        (asked("colour", "dog", colours=("black",)), [SECOND_DOG, DOG], False),
        (asked("place", "dog", "cat", place="left of"), [DOG, CAT], True),
        (asked("place", "dog", "cat", place="right of"), [DOG, CAT], False),
        (asked("place", "cat", "dog", place="below"), [SECOND_DOG, CAT], True),
        (asked("place", "dog", "cat", place="left of"), [DOG], False),
        (asked("binding", "dog", "cat", colours=("black", "white")), [DOG, CAT], True),
        (asked("binding", "dog", "cat", colours=("white", "black")), [DOG, CAT], False),
        (asked("binding", "dog", "cat", colours=("black", "white")), [CAT], False),
    ],
)
def test_a_picture_is_right_where_all_that_is_asked_is_in_it(
    composition: Composition, found: list[Found], is_shown: bool
) -> None:
    assert composition.is_shown(found, BLACK_DOG_WHITE_CAT.__getitem__) is is_shown


BOXES = st.tuples(*[st.floats(0, 100)] * 2, *[st.floats(1, 50)] * 2).map(
    lambda one: (one[0], one[1], one[0] + one[2], one[1] + one[3])
)


@given(BOXES, BOXES)
def test_what_is_left_of_another_has_the_other_on_its_right(one: tuple[float, ...], other: tuple[float, ...]) -> None:
    opposite = dict(zip(PLACES, ("right of", "left of", "below", "above"), strict=True))
    seen = places(Found("", one), Found("", other))
    assert places(Found("", other), Found("", one)) == {opposite[place] for place in seen}
    assert len(seen) <= 2 and not places(Found("", one), Found("", one))


def test_the_suite_has_as_many_prompts_of_each_kind_and_each_says_what_it_asks() -> None:
    assert set(Counter(one.kind for one in SUITE).values()) == {50}
    assert len({one.prompt for one in SUITE}) == len(SUITE)
    assert {one.kind for one in SUITE[:6]} == {one.kind for one in SUITE}
    for one in SUITE:
        number = {1: "", 2: "two ", 3: "three ", 4: "four "}[one.count]
        words = [*one.objects, *one.colours, one.place, number]
        assert all(word in one.prompt for word in words)
        assert (one.count > 1, bool(one.place)) == (one.kind == COUNT, one.kind == "place")
        assert len(one.colours) == {"colour": 1, "binding": 2}.get(one.kind, 0)
        assert len(one.objects) == (1 if one.kind in {"object", COUNT, "colour"} else 2)
