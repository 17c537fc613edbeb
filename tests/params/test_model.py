"""A setting says at its field what it decides, and one that came later changes nothing at its neutral value."""

from typing import Annotated

import pytest

from params.model import Decides, Model, Neutral, added, unmentioned
from params.programs import DownloadArguments, EncodeArguments, EvaluateArguments, TrainArguments


class First(Model):
    size_px: int = 64
    """Side. [content]"""
    threads: int = 1
    """Connections. [running]"""
    uri: str = ""
    """Address. [place]"""


class Later(First):
    sharpen: Annotated[bool, Neutral(False)] = True
    """Sharpen. [content]"""
    undeclared: tuple[int, ...] = ()
    """Numbers."""


def identity(settings: Model) -> dict[str, object]:
    return settings.deciding(settings.names(Decides.CONTENT))


@pytest.mark.parametrize("program", [DownloadArguments, EncodeArguments, EvaluateArguments, TrainArguments])
def test_every_setting_of_a_program_that_makes_an_artifact_says_what_it_decides(program: type[Model]) -> None:
    silent = [name for name, field in program.model_fields.items() if Decides.stated_by(field) is None]
    assert not silent, f"{program.__name__}: say what {silent} decide at the end of their documentation (params.model)"


def test_a_first_field_counts_whatever_its_value_and_how_it_runs_does_not() -> None:
    assert identity(First()) == {"size_px": 64}
    assert identity(First(size_px=32, threads=9, uri="s3://b/k")) == {"size_px": 32}


def test_a_later_field_counts_only_where_it_changes_something() -> None:
    assert identity(Later(sharpen=False)) == identity(First())
    assert identity(Later()) == {"size_px": 64, "sharpen": True}


def test_a_field_that_says_nothing_is_never_passed_over() -> None:
    assert identity(Later(sharpen=False, undeclared=(1,))) == {"size_px": 64, "undeclared": [1]}


def test_the_names_of_all_decisions_are_all_names() -> None:
    assert Later.names(*Decides) == Later.model_fields.keys()
    assert not Later.names(Decides.RUNNING) & Later.names(Decides.CONTENT)


def test_a_word_that_names_no_decision_is_an_error() -> None:
    class Misspelt(Model):
        size_px: int = 64
        """Side. [contents]"""

    with pytest.raises(ValueError, match="contents"):
        Misspelt.names(Decides.CONTENT)


class _Release2(Model):
    old: int = 1
    """Before. [running]"""
    new: int = added(0, ge=0)
    """Later. [content]"""
    names_of_it: tuple[str, ...] = added(())
    """Later. [running]"""


def test_a_field_of_a_later_release_is_mentioned_once_it_has_another_value() -> None:
    assert unmentioned(_Release2()) == {"new", "names_of_it"}
    assert unmentioned(_Release2(old=2, new=1)) == {"names_of_it"}
    assert unmentioned(_Release2(names_of_it=("a",))) == {"new"}
    assert identity(_Release2(new=0)) == {} and identity(_Release2(new=2)) == {"new": 2}
    with pytest.raises(ValueError, match="new"):
        _Release2(new=-1)
