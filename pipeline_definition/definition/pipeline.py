"""The DAG on one screen.

Reads a parameter set; writes nothing, opens no connection. The same settings give the same bytes.

    sd-pipeline definition --params params/local.yaml
"""

from __future__ import annotations

import json

from params.settings import Settings
from pipeline_definition.definition.terms import with_terms
from pipeline_definition.session import offline_session, quiet_sdk


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
    from pipeline_definition.definition.training import throughput_step, train_step
    from pipeline_definition.definition.tuning import tune_step

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
    evaluate = evaluate_step(blueprint, encode, train)

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
