"""Settings to command-line flags, hyperparameters and environment variables, and back.

One model of `params.programs` is at once a key of the parameter sets, a flag of its program and an argument in the
pipeline definition. Values travel as strings: lists as comma-separated words, booleans as true or false.
"""

import argparse
import difflib
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from params.model import Model

M = TypeVar("M", bound=Model)


class ArgumentError(ValueError):
    """A flag, hyperparameter or environment variable is unknown or has a bad value."""


def to_text(value: object) -> str:
    """Return the one spelling in which a value travels to a job."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(to_text(item) for item in value)
    return repr(value) if isinstance(value, float) else str(value)


def flag(field: str) -> str:
    """Return the command-line flag of a field: `image_size_px` is `--image-size-px`."""
    return "--" + field.replace("_", "-")


def to_flags(values: Mapping[str, Any]) -> list[Any]:
    """Return `["--image-size-px", "256", ...]`; None is left out, pipeline variables pass through as they are."""
    flags: list[Any] = []
    for field, value in values.items():
        text = to_text(value) if isinstance(value, (str, int, float, list, tuple)) else value
        if text is not None and text != "":
            flags += [flag(field), text]
    return flags


def from_texts(model: type[M], texts: Mapping[str, str], source: str) -> M:
    """Build a settings model from texts; an ArgumentError names the source, the field and the nearest right name."""
    values: dict[str, Any] = {}
    for name, text in texts.items():
        field = model.model_fields.get(name)
        if field is None:
            close = difflib.get_close_matches(name, model.model_fields, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ArgumentError(f"{source}: unknown setting {name!r}{hint}")
        values[name] = tuple(filter(None, text.split(","))) if _is_tuple(field) else text
    return validated(model, values, source, ArgumentError)


def hint_at(name: str, known: Collection[str], prefix: str = "") -> str:
    """Return `did you mean NAME?` with the nearest known name, behind its prefix; all of them where none is near."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {prefix}{close[0]}?" if close else f"known: {', '.join(known)}"


def validated(model: type[M], values: object, source: str, refused: type[Exception]) -> M:
    """Return the model of some values; raise `refused`, which names source and key, where they are not fit."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise refused(f"{source}: {describe(error)}") from None


def from_environment(model: type[M], environment: Mapping[str, str], prefix: str) -> M:
    """Build a settings model from the variables that start with `prefix`, as SERVE_QUEUE_SIZE for `queue_size`."""
    texts = {name.removeprefix(prefix).lower(): text for name, text in environment.items() if name.startswith(prefix)}
    return from_texts(model, texts, "environment")


def to_environment(values: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Return the environment variables from which `from_environment` reads the same values."""
    return {prefix + name.upper(): to_text(value) for name, value in values.items() if value is not None}


def parse(model: type[M], argv: Sequence[str], program: str) -> M:
    """Parse a program's command line, a flag for each field; a bad one ends the process with status 2 and one line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m steps {program}",
        description=(model.__doc__ or "").strip(),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    for name, field in model.model_fields.items():
        default = argparse.SUPPRESS if field.is_required() else to_text(field.default)
        text = (field.description or "").replace("%", "%%")
        # Several words, each a list of its own: what starts a job limits how long a word may be.
        words = "*" if _is_tuple(field) else None
        options: dict[str, Any] = {"nargs": words, "default": default, "required": field.is_required(), "help": text}
        parser.add_argument(flag(name), dest=name, **options)
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    texts = {name: ",".join(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        return from_texts(model, texts, "command line")
    except ArgumentError as error:
        parser.error(str(error))


def describe(error: ValidationError) -> str:
    """Return pydantic's findings in one line: `global_batch_size: Input should be ... (got 'x')`."""
    findings = []
    for item in error.errors():
        wrong = "write a mapping of keys, `key: value`" if item["type"] == "model_type" else item["msg"]
        where = [".".join(map(str, item["loc"]))] if item["loc"] else []
        findings.append(": ".join([*where, f"{wrong} (got {item['input']!r})"]))
    return "; ".join(findings)


def _is_tuple(field: FieldInfo) -> bool:
    annotation = field.annotation
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return any(typing.get_origin(option) is tuple for option in options)
