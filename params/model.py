"""The base of every settings model: frozen, strict about names, documented field by field.

The documentation of a setting ends in what it decides of the artifact that its program makes, as in `JPEG quality of
the stored pictures. [content]`.
"""

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

_DECISION: Final = re.compile(r"\[(\w+)\]$")


class Decides(Enum):
    """What a setting decides of an artifact."""

    CONTENT = "content"
    """The bytes of its parts (shards, latents, pictures, checkpoints): another value makes other parts."""
    EXTENT = "extent"
    """What is made of the parts: which of them count, how many there are. Another value uses the same parts."""
    RUNNING = "running"
    """How it is made: how fast, how often saved, how closely watched."""
    MONEY = "money"
    """What it may cost."""
    PLACE = "place"
    """Where something lies; what lies there counts by its own digest."""

    @classmethod
    def stated_by(cls, field: FieldInfo) -> "Decides | None":
        """Return what a field says that it decides; None where it does not say."""
        match = _DECISION.search(field.description or "")
        return cls(match[1]) if match else None


@dataclass(frozen=True)
class Neutral:
    """The value at which a field that came after release 0.1.0 changes nothing: identities then leave it out."""

    value: Any


class Model(BaseModel):
    """Frozen pydantic model; an unknown key is an error and the string under a field is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    @classmethod
    @functools.cache
    def names(cls, *decided: Decides) -> frozenset[str]:
        """Return the names of the fields that decide one of these; one that does not say decides content."""
        fields = cls.model_fields.items()
        return frozenset(name for name, field in fields if (Decides.stated_by(field) or Decides.CONTENT) in decided)

    def deciding(self, names: Collection[str]) -> dict[str, Any]:
        """Return the values of these fields, ready for JSON, without those that have their neutral value."""
        values = self.model_dump(mode="json", include=set(names))
        fields = type(self).model_fields
        return {name: value for name, value in values.items() if not _is_neutral(fields[name], getattr(self, name))}


def added(default: Any, **limits: Any) -> Any:
    """Return a field that came after release 0.1.0: at its default neither definitions nor identities mention it."""
    field = Field(default, **limits)
    field.metadata.append(Neutral(default))
    return field


def unmentioned(model: Model) -> set[str]:
    """Return the names of the fields that came later and have their neutral value."""
    fields = type(model).model_fields.items()
    return {name for name, field in fields if Neutral(getattr(model, name)) in field.metadata}


def _is_neutral(field: FieldInfo, value: Any) -> bool:
    """Return whether a field has its neutral value; one that says nothing at all is neutral at its default."""
    for item in field.metadata:
        if isinstance(item, Neutral):
            return bool(value == item.value)
    return Decides.stated_by(field) is None and bool(value == field.get_default(call_default_factory=True))
