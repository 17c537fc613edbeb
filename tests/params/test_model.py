from __future__ import annotations

from params.model import Model, added, unmentioned


class _Release2(Model):
    old: int = 1
    new: int = added(0, ge=0)
    names: tuple[str, ...] = added(())


def test_a_field_of_a_later_release_is_mentioned_once_it_has_another_value() -> None:
    assert unmentioned(_Release2()) == {"new", "names"}
    assert unmentioned(_Release2(old=2, new=1)) == {"names"}
    assert unmentioned(_Release2(names=("a",))) == {"new"}
