"""A pipeline definition: JSON to typed steps and the graph between them.

A type of step, function, condition, argument or key that is not known here is an error that names it: none is skipped.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import TypeAdapter, ValidationError

from params.arguments import hint_at
from pipeline_definition.jobs.request_shapes import REQUESTS
from pipeline_definition.local.conditions import check_condition
from pipeline_definition.local.errors import DefinitionError
from pipeline_definition.local.expressions import GET, JSON_GET, check_expressions, expressions, referenced_steps
from pipeline_definition.local.parameters import Parameter
from pipeline_definition.local.request_checks import check_arguments_of, honoured
from pipeline_definition.local.retries import RetryPolicy

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
TRIGGERS = ("Completed", "Failed", "Stopped", "Any")
_COMMON_KEYS = {"Name", "Type", "Arguments", "DependsOn", "DisplayName", "Description"}
STEP_KEYS = honoured("steps")
_DURATION: TypeAdapter[timedelta] = TypeAdapter(timedelta)


@dataclass(frozen=True)
class Branch:
    """The branch of a ConditionStep that a step belongs to."""

    condition: str
    outcome: bool


@dataclass(frozen=True)
class DefinedStep:
    """One step; `arguments` still holds its functions."""

    name: str
    type: str
    arguments: Mapping[str, Any]
    """Without the branches of a condition, which are steps themselves."""
    source: Mapping[str, Any]
    """The step as the definition gives it."""
    dependencies: Mapping[str, str]
    """Step name to the outcome that it must have: one of TRIGGERS."""
    branch: Branch | None
    cache_expires_after_s: float | None
    """None: never reused."""
    retry_policies: tuple[RetryPolicy, ...]

    @property
    def needed(self) -> set[str]:
        """The steps that have to end before this one begins, or never does."""
        return {*self.dependencies, *([self.branch.condition] if self.branch else ())}

    @property
    def property_files(self) -> Mapping[str, Mapping[str, str]]:
        return {item["PropertyFileName"]: item for item in self.source.get("PropertyFiles", ())}


@dataclass(frozen=True)
class Definition:
    parameters: tuple[Parameter, ...]
    steps: Mapping[str, DefinedStep]
    text: str


def parse_definition(text: str, refuse_image: Callable[[str], None] = lambda image: None) -> Definition:
    """Read a definition; DefinitionError names the step and what is wrong with it.

    `refuse_image` raises it for an image without an entry point that cannot run.
    """
    source = _load(text)
    parameters = tuple(Parameter.parse(item) for item in source.get("Parameters") or ())
    for name, count in Counter(parameter.name for parameter in parameters).items():
        if count > 1:
            raise DefinitionError(f"parameter {name!r} is defined twice")
    steps: dict[str, DefinedStep] = {}
    for item, branch in _flatten(source["Steps"], None):
        try:
            step = _parse_step(item, branch, parameters)
            refuse_image(_image_of(step, parameters))
        except DefinitionError as error:
            raise DefinitionError(f"step {item.get('Name')!r}: {error}") from None
        if step.name in steps:
            raise DefinitionError(f"step name {step.name!r} is used twice")
        steps[step.name] = step
    _check_graph(steps)
    _check_property_files(steps)
    return Definition(parameters, steps, text)


def _load(text: str) -> dict[str, Any]:
    try:
        source = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"not valid JSON: {error}") from None
    if not isinstance(source, dict) or not isinstance(source.get("Steps"), list):
        raise DefinitionError("a definition is an object with a list of Steps")
    _check_keys(source, {"Version", "Metadata", "Parameters", "PipelineExperimentConfig", "MlflowConfig", "Steps"})
    return source


def _check_keys(source: Mapping[str, Any], known: set[str], what: str = "unknown key") -> None:
    unknown = set(source) - known
    if unknown:
        raise DefinitionError(f"{what} {min(unknown)!r}; known: {', '.join(sorted(known))}")


def _flatten(items: list[Any], branch: Branch | None) -> Iterator[tuple[dict[str, Any], Branch | None]]:
    for item in items:
        if not isinstance(item, dict):
            raise DefinitionError(f"a step is an object, not {item!r}")
        yield item, branch
        if item.get("Type") == "Condition":
            arguments = item.get("Arguments") or {}
            name = str(item.get("Name"))
            yield from _flatten(arguments.get("IfSteps") or [], Branch(name, True))
            yield from _flatten(arguments.get("ElseSteps") or [], Branch(name, False))


def _parse_step(item: Mapping[str, Any], branch: Branch | None, parameters: tuple[Parameter, ...]) -> DefinedStep:
    kind, name = str(item.get("Type")), item.get("Name")
    if kind not in STEP_KEYS:
        raise DefinitionError(f"unknown type of step {kind!r}; {hint_at(kind, STEP_KEYS)}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DefinitionError("a step needs a Name of 1 to 64 letters, digits, - and _")
    _check_keys(item, _COMMON_KEYS.union(STEP_KEYS[kind]))
    arguments = _own_arguments(kind, item.get("Arguments") or {}, {item.name: item.type for item in parameters})
    check_expressions(arguments, {parameter.name for parameter in parameters})
    return DefinedStep(
        name=name,
        type=kind,
        arguments=arguments,
        source=item,
        dependencies=dict.fromkeys(referenced_steps(arguments), "Completed") | _depends_on(item.get("DependsOn") or ()),
        branch=branch,
        cache_expires_after_s=_cache_expiry(item.get("CacheConfig") or {}),
        retry_policies=tuple(_retry_policy(policy) for policy in item.get("RetryPolicies") or ()),
    )


def _own_arguments(kind: str, arguments: dict[str, Any], parameters: Mapping[str, str]) -> dict[str, Any]:
    if kind in REQUESTS:
        check_arguments_of(kind, arguments, parameters)
    elif kind == "Condition":
        _check_keys(arguments, {"Conditions", "IfSteps", "ElseSteps"}, "unknown argument")
        for condition in arguments.get("Conditions") or ():
            check_condition(condition)
        return {"Conditions": arguments.get("Conditions") or []}
    elif kind == "Fail":
        _check_keys(arguments, {"ErrorMessage"}, "unknown argument")
    return arguments


def _image_of(step: DefinedStep, parameters: tuple[Parameter, ...]) -> str:
    """Return the image whose own entry point a job's step runs, as far as it is known before the run."""
    definition = step.arguments.get("TrainingJobDefinition", step.arguments)
    program = definition.get("AppSpecification") or definition.get("AlgorithmSpecification") or {}
    image = "" if program.get("ContainerEntrypoint") else program.get("ImageUri") or program.get("TrainingImage") or ""
    if isinstance(image, Mapping):
        defaults = {f"Parameters.{parameter.name}": parameter.default for parameter in parameters}
        image = defaults.get(str(image.get(GET))) or ""
    return str(image)


def _depends_on(items: Any) -> dict[str, str]:
    dependencies: dict[str, str] = {}
    for item in items:
        if isinstance(item, str):
            dependencies[item] = "Completed"
        elif isinstance(item, dict) and set(item) == {"Step", "Trigger"} and item["Trigger"] in TRIGGERS:
            dependencies[item["Step"]] = item["Trigger"]
        else:
            raise DefinitionError(f"DependsOn {item!r}: neither a step's name nor a Step with a Trigger of {TRIGGERS}")
    return dependencies


def _cache_expiry(source: Mapping[str, Any]) -> float | None:
    _check_keys(source, {"Enabled", "ExpireAfter"}, "CacheConfig: unknown key")
    if not source.get("Enabled"):
        return None
    return parse_duration_s(source["ExpireAfter"]) if "ExpireAfter" in source else float("inf")


def _retry_policy(source: Mapping[str, Any]) -> RetryPolicy:
    try:
        return RetryPolicy.model_validate(source)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise DefinitionError(f"RetryPolicies: {where} {problem['input']!r}: {problem['msg']}") from None


def _check_graph(steps: Mapping[str, DefinedStep]) -> None:
    for step in steps.values():
        for dependency in step.dependencies:
            if dependency not in steps:
                raise DefinitionError(f"step {step.name!r}: refers to step {dependency!r}, which does not exist")
    try:
        TopologicalSorter({name: step.needed for name, step in steps.items()}).prepare()
    except CycleError as error:
        raise DefinitionError(f"steps {sorted(set(error.args[1]))} depend on each other in a circle") from None


def _check_property_files(steps: Mapping[str, DefinedStep]) -> None:
    for step in steps.values():
        for name, argument in expressions(step.arguments):
            if name == JSON_GET and "PropertyFile" in argument:
                source, file = property_file_of(argument["PropertyFile"])
                if source not in steps or file not in steps[source].property_files:
                    raise DefinitionError(f"step {step.name!r}: {JSON_GET}: no property file {file!r} of {source!r}")


def property_file_of(reference: Any) -> tuple[str, str]:
    """Return (step, property file) of `{"Get": "Steps.NAME.PropertyFiles.FILE"}`; empty names for anything else."""
    text = reference.get(GET) if isinstance(reference, Mapping) else reference
    parts = str(text).split(".", 3)
    return (parts[1], parts[3]) if len(parts) == 4 and parts[0] == "Steps" and parts[2] == "PropertyFiles" else ("", "")


def parse_duration_s(text: str) -> float:
    """Return an ISO 8601 duration in seconds, a year as 365 days, a month as 30; DefinitionError for anything else."""
    try:
        # pydantic also reads other forms, such as `30 days`, a sign, and a T that nothing follows.
        text = re.sub("^T", "PT", text.upper())  # AWS's own documents have p30d and T12H, too
        return _DURATION.validate_python(re.fullmatch(r"P.*\d[A-Z]", text)[0]).total_seconds()  # type: ignore[index]
    except (TypeError, ValueError, AttributeError):
        raise DefinitionError(f"{text!r} is not an ISO 8601 duration such as P30D or PT12H") from None
