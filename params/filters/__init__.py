"""Filters: what the url table tells of a row that keeps it out of the data. One class is one filter.

A filter is a class with a `cause` in a module of this folder: `published` comes first, then the others by name. The
folder is part of checkouts and images, and a filter comes from nowhere else: neither data nor a setting brings code.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from copy import copy
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, NamedTuple, Self, TypeVar

from pydantic import create_model
from pydantic.fields import FieldInfo

from params.model import Decides, Model, Neutral

M = TypeVar("M", bound=Model)


class TableColumn(NamedTuple):
    """A column of the url table."""

    name: str
    """What `score_columns` calls it; `caption` is the one that `caption_column` names."""
    published_as: tuple[str, ...] = ()
    """How published tables call it, in lower case; the first of them that the table has is read."""
    words: Mapping[str, float] = MappingProxyType({})
    """Which numbers published words stand for, in lower case; a column of other words is refused."""
    kind: Literal["number", "text", "characters"] = "number"
    """What the predicate gets for each row: a float64, NaN where there is none, which no comparison lets pass; a string
    of an Arrow array, '' where there is none; or how many characters that string has."""


class Filter(Model):
    """One reason to leave rows out. Its fields are settings of Download; at their defaults it leaves out nothing."""

    cause: ClassVar[str]
    """Under which the rows are counted."""
    columns: ClassVar[tuple[TableColumn, ...]]
    """What the predicate gets, in this order. A filter that is on and lacks one is refused."""
    measured: ClassVar[bool] = False
    """Whether the picture itself is judged as well: on in any case where the columns are above 0, and applied last."""

    @classmethod
    def from_settings(cls, settings: Model) -> Self:
        """Return the filter as these settings want it."""
        return cls.model_validate(settings.model_dump(include=set(cls.model_fields)))

    @property
    def is_on(self) -> bool:
        """Whether there is anything to do."""
        return self.measured or self != type(self)()

    def keeps(self, *columns: Any) -> Any:
        """Return for each row whether it passes: an array of booleans, NumPy's or Arrow's."""
        raise NotImplementedError


def _discovered() -> Iterator[type[Filter]]:
    names = (module.name for module in pkgutil.iter_modules(__path__))
    for name in sorted(names, key=lambda name: name != "published"):
        module = importlib.import_module(f"{__name__}.{name}")
        for one in vars(module).values():
            if isinstance(one, type) and one.__module__ == module.__name__ and "cause" in vars(one):
                yield one


FILTERS: Final = tuple(_discovered())
"""In the order of their settings."""


def with_filters(model: type[M]) -> type[M]:
    """Return a model with all filters' settings behind its own, some shared; TypeError where a name is taken."""
    causes: set[str] = set()
    fields: dict[str, Any] = {}
    known = dict(model.model_fields)
    for one in FILTERS:
        shared = [(name, field, known[name]) for name, field in one.model_fields.items() if name in known]
        taken = [name for name, a, b in shared if (a.annotation, a.default) != (b.annotation, b.default)]
        if taken or one.cause in causes:
            raise TypeError(f"{one.__module__}.{one.__name__}: taken already: {', '.join(taken or [one.cause])}")
        causes.add(one.cause)
        own = {name: _as_extent(field) for name, field in one.model_fields.items() if name not in known}
        fields |= {name: (field.annotation, field) for name, field in own.items()}
        known |= one.model_fields
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, __module__=model.__module__, **fields)


def _as_extent(field: FieldInfo) -> FieldInfo:
    """Return a setting that says what it decides; by itself a filter's setting changes nothing at its default."""
    if Decides.stated_by(field) is not None:
        return field
    declared = copy(field)
    declared.description = f"{field.description or ''} [{Decides.EXTENT.value}]"
    declared.metadata = [*field.metadata, Neutral(field.default)]
    return declared
