"""Where the model comes from, and whether it may be used: the parameters, the package, the training's own record."""

from pipeline_definition.artifacts import Artifacts
from pipeline_definition.pages.document import Fact, Section, Table
from pipeline_definition.pages.formats import date, leaves, moment, plain
from pipeline_definition.report.run import Run

APPROVAL = {"PendingManualApproval": "waiting for approval", "Approved": "approved", "Rejected": "rejected"}


def parameters_section(run: Run) -> Section:
    values, defaults = run.artifacts.parameters, run.artifacts.defaults
    described = {item["Name"]: item.get("Description", "") for item in run.artifacts.definition.get("Parameters", [])}
    changed = {name: value for name, value in values.items() if value != defaults.get(name)}
    known = {name: (plain(value), plain(defaults.get(name)), described.get(name, "")) for name, value in values.items()}
    changed_rows = tuple((name, *known[name]) for name in changed)
    all_rows = tuple((name, value, what) for name, (value, _, what) in known.items())
    words = {0: "Nothing: every parameter is at its default.", 1: "1 parameter differs from the defaults."}
    lead = words.get(len(changed), f"{len(changed)} parameters differ from the defaults.")
    tables = (
        Table(("parameter", "in this run", "default", "what it is"), changed_rows, wraps=True),
        Table(("parameter", "value", "what it is"), all_rows, summary=f"All {len(values)} parameters", wraps=True),
    )
    return Section("parameters", "What was changed for this run", lead, tables=tables)


def lineage_section(run: Run) -> Section:
    package, lineage = run.artifacts.model_package or {}, run.artifacts.lineage or {}
    rows = [("model package", str(package["arn"]))] if package.get("arn") else []
    rows += [("model archive", str(uri)) for uri in package.get("model_data") or () if uri]
    rows += [("metrics", str(package["metrics_uri"]))] if package.get("metrics_uri") else []
    rows += [(key.replace("_", " "), str(value)) for key, value in (package.get("metadata") or {}).items()]
    written = tuple(leaves(lineage)) if lineage else ()
    tables = (
        Table(("registered with", ""), tuple(rows), wraps=True),
        Table(("recorded by the training", ""), written, summary="The training’s own record", wraps=True),
    )
    facts, state = [], str(package.get("approval_status") or "")
    if package:
        facts.append(Fact("approval", APPROVAL.get(state, state), str(package.get("approval_description") or "")))
        if created := moment(package.get("created")):
            facts.append(Fact("registered", date(created)))
        if run.endpoint is not None:
            name = run.artifacts.parameters.get("EndpointName") or run.endpoint.name
            facts.append(Fact("endpoint", str(name)))
    return Section("lineage", "Where the model stands", registered(run.artifacts), tuple(facts), tables=tables)


def registered(artifacts: Artifacts) -> str:
    """Return the model package and its approval in a sentence; empty where the model was not registered."""
    package = artifacts.model_package or {}
    if not package:
        return ""
    state = str(package.get("approval_status") or "")
    name = f"{package.get('group')} version {package.get('version')}" if package.get("group") else package.get("arn")
    return f"Registered as {name}, {APPROVAL.get(state, state)}."
