"""The base of every settings model: frozen, strict about names, documented field by field."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_ADDED = "added"


class Model(BaseModel):
    """Frozen pydantic model; an unknown key is an error and the string under a field is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


def added(default: Any, **limits: Any) -> Any:
    """Return a field that a later release brought: at its default, definitions and identities do not mention it.

    So an upgrade changes neither the bytes of a definition nor what an artifact of before it is an artifact of.
    """
    return Field(default, json_schema_extra={_ADDED: True}, **limits)


def unmentioned(model: Model) -> set[str]:
    """Return the names of the fields that were added later and are at their defaults."""
    return {
        name
        for name, field in type(model).model_fields.items()
        if _is_added(field.json_schema_extra) and getattr(model, name) == field.default
    }


def _is_added(extra: object) -> bool:
    return isinstance(extra, Collection) and _ADDED in extra
