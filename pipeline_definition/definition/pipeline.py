"""The DAG on one screen, and the definitions that were built before: the SageMaker SDK takes seconds to import.

Reads a parameter set, opens no connection: the same settings give the same bytes. Reads and writes
<cache>/sd-pipeline/definitions/<digest>.json, <cache> being XDG_CACHE_HOME or ~/.cache. The digest is over the
settings, in which prices are, every file that the definition is made of, and the SDK's version: building is a function
of these three. The folder can be deleted at any time.

    sd-pipeline definition --params params/local.yaml
"""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from params.files import write_text
from params.settings import Settings
from pipeline_definition.definition.terms import with_terms
from pipeline_definition.session import offline_session, quiet_sdk

MAX_KEPT: Final = 64
_ROOT: Final = Path(__file__).resolve().parents[2]


def build_definition(settings: Settings) -> str:
    """Return the pipeline definition JSON: the one description of the DAG that everything else reads."""
    with quiet_sdk(settings.account.region):
        definition = with_terms(json.loads(_build(settings)), settings)
        return json.dumps(definition, indent=2, ensure_ascii=False)


def _build(settings: Settings) -> str:
    # The SDK takes seconds to import and needs a region to do so: here, not at the top.
    from sagemaker.mlops.workflow import Pipeline

    from pipeline_definition.definition.blueprint import Blueprint
    from pipeline_definition.definition.data import download_step, encode_step, recaption_step
    from pipeline_definition.definition.deployment import create_model_step, endpoint_config_step, endpoint_step
    from pipeline_definition.definition.evaluation import evaluate_step
    from pipeline_definition.definition.gate import gate_step
    from pipeline_definition.definition.parameters import PipelineParameters
    from pipeline_definition.definition.registration import register_step
    from pipeline_definition.definition.training import throughput_step, train_step, tune_step

    session = offline_session(settings.account.region, settings.account.bucket)
    blueprint = Blueprint(settings, PipelineParameters(settings), session)

    download = download_step(blueprint)
    recaption = recaption_step(blueprint, settings.recaption, download) if settings.recaption else None
    encode = encode_step(blueprint, settings.phases[0], download, recaption)
    tune = tune_step(blueprint, encode)
    train = train_step(blueprint, settings.phases[0], encode, tune)
    measured = [throughput_step(blueprint, settings.throughput, encode)] if settings.throughput else []
    trained = [encode, *measured, tune, train]
    for phase in settings.phases[1:]:
        encode = encode_step(blueprint, phase, download, recaption)
        train = train_step(blueprint, phase, encode, tune, former=train)
        trained += [encode, train]
    evaluate = evaluate_step(blueprint, encode, train, trained[0])

    register = register_step(blueprint, encode, train, evaluate)
    create_model = create_model_step(blueprint, train, register)
    endpoint_config = endpoint_config_step(blueprint, create_model)
    endpoint = endpoint_step(blueprint, endpoint_config)
    gate = gate_step(blueprint, evaluate, passed=[register, create_model, endpoint_config, endpoint])

    pipeline = Pipeline(
        name=settings.pipeline_name,
        parameters=blueprint.parameters.flat(),
        steps=[download, *([recaption] if recaption else []), *trained, evaluate, gate],
        sagemaker_session=session,
    )
    return str(pipeline.definition())


def definition_of(settings: Settings) -> str:
    """Return what `build_definition` returns, byte for byte."""
    path = cache_folder() / f"{digest_of(settings)}.json"
    with suppress(OSError, ValueError):
        text = path.read_text(encoding="utf-8")
        json.loads(text)
        return text
    text = build_definition(settings)
    # A home that cannot be written to costs the seconds again, nothing else.
    with suppress(OSError):
        write_text(path, text)
        newest = sorted(path.parent.glob("*.json"), key=lambda kept: kept.stat().st_mtime, reverse=True)
        for old in newest[MAX_KEPT:]:
            old.unlink(missing_ok=True)
    return text


def cache_folder() -> Path:
    """Return where definitions are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sd-pipeline" / "definitions"


def digest_of(settings: Settings) -> str:
    """Return a digest of everything that decides a definition."""
    digest = hashlib.sha256(settings.model_dump_json().encode())
    digest.update(f"{importlib.metadata.version('sagemaker')} {platform.python_version()}".encode())
    for path in _sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _sources() -> Iterator[Path]:
    """Yield the files of the definition and of what it may import, data files too; a contract in setup.cfg holds it."""
    for room in ("params", "pipeline_definition/definition"):
        yield from sorted(path for path in (_ROOT / room).rglob("*") if path.suffix != ".pyc" and path.is_file())
    yield from (_ROOT / "pipeline_definition" / name for name in ("__init__.py", "session.py"))
