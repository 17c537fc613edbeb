import json
import os
import subprocess
import sys
from pathlib import Path

import botocore.session
import jsonschema
import pytest
from botocore.validate import ParamValidator

from params.arguments import from_texts, parse
from params.layout import CHECKPOINT_METRICS, TRAINING_METRICS
from params.programs import DownloadArguments, EncodeArguments, EvaluateArguments, ServeArguments, TrainArguments
from params.settings import load_settings, parse_settings
from pipeline_definition.cost.host_hours import priced
from pipeline_definition.definition.pipeline import build_definition
from pipeline_definition.local.conditions import holds
from tests.pipeline_definition.definitions import (
    PARAMETER_SETS,
    all_steps,
    at_defaults,
    defaults_of,
    definition_of,
    text_of,
)

SCHEMA = json.loads(Path("tests/data/pipeline-definition.schema.json").read_text())
# What the published schema (April 2025) has no words for: the SDK emits all of it and SageMaker documents it.
NEWER_FIELDS = ("PipelineExperimentConfig", "MlflowConfig")
NEWER_STEP_FIELDS = (
    "RandomSeed",
    "PropertyFiles",
    "CompressionType",
    "InstanceGroups",
    "InstanceGroupNames",
    "Environment",
    "CustomerMetadataProperties",
    "ModelApprovalStatus",
    "SkipModelValidation",
)
SCHEMA_KINDS = {
    "Processing": "ProcessingStep",
    "Training": "TrainingStep",
    "Tuning": "TuningStep",
    "Model": "CreateModelStep",
    "RegisterModel": "RegisterModelStep",
    "Condition": "ConditionStep",
    "Fail": "FailStep",
    "Endpoint": "EndpointStep",
}
OPERATIONS = {
    "Processing": ("CreateProcessingJob", {"ProcessingJobName": "name"}),
    "Training": ("CreateTrainingJob", {"TrainingJobName": "name"}),
    "Tuning": ("CreateHyperParameterTuningJob", {"HyperParameterTuningJobName": "name"}),
    "Model": ("CreateModel", {"ModelName": "name"}),
    "RegisterModel": ("CreateModelPackage", {}),
    "EndpointConfig": ("CreateEndpointConfig", {}),
    "Endpoint": ("CreateEndpoint", {}),
}
KINDS = {
    "Download": "Processing",
    "Encode": "Processing",
    "Tune": "Tuning",
    "Train": "Training",
    "Evaluate": "Processing",
    "QualityGate": "Condition",
    "Register": "RegisterModel",
    "CreateModel": "Model",
    "EndpointConfig": "EndpointConfig",
    "Endpoint": "Endpoint",
    "GateFailed": "Fail",
}
PROCESSING_PROGRAMS = {
    "Download": DownloadArguments,
    "Encode": EncodeArguments,
    "EncodePhase2": EncodeArguments,
    "Evaluate": EvaluateArguments,
}


def step_for_schema(step, parameters):
    """Return a step in the published schema's words.

    The schema knows no function but Get in an argument, one exception type for each retry policy, and few step kinds
    behind a condition: functions are resolved, policies are spelled out, and the steps of both branches are validated
    by themselves.
    """
    arguments = without(at_defaults(step["Arguments"], parameters), NEWER_STEP_FIELDS)
    if step["Type"] == "Condition":
        arguments = {**arguments, "IfSteps": [], "ElseSteps": []}
    policies = [
        {**policy, "ExceptionType": kind}
        for policy in step.get("RetryPolicies", [])
        for kind in policy["ExceptionType"]
    ]
    spelled_out = {"RetryPolicies": policies} if policies else {}
    return {**without(step, NEWER_STEP_FIELDS), "Arguments": arguments, **spelled_out}


def without(value, names):
    if isinstance(value, list):
        return [without(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: without(item, names) for key, item in value.items() if key not in names}


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_definition_validates_against_the_published_schema(name):
    definition = definition_of(name)
    parameters = defaults_of(definition)
    known = {key: value for key, value in definition.items() if key not in NEWER_FIELDS}
    # EnumValues is newer, too.
    top = {**known, "Parameters": without(known["Parameters"], ("EnumValues",)), "Steps": []}
    jsonschema.Draft7Validator(SCHEMA).validate(top)
    # EndpointConfig has no type of its own in the schema.
    steps = [step for step in all_steps(definition).values() if step["Type"] != "EndpointConfig"]
    assert len(steps) >= 10
    for step in steps:
        kind = {**SCHEMA["definitions"][SCHEMA_KINDS[step["Type"]]], "definitions": SCHEMA["definitions"]}
        jsonschema.Draft7Validator(kind).validate(step_for_schema(step, parameters))


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_every_steps_arguments_are_requests_that_the_api_takes(name):
    definition = definition_of(name)
    parameters = defaults_of(definition)
    model = botocore.session.get_session().get_service_model("sagemaker")
    checked = 0
    for step in all_steps(definition).values():
        if step["Type"] not in OPERATIONS:
            continue
        operation, service_sets = OPERATIONS[step["Type"]]
        request = {**service_sets, **at_defaults(step["Arguments"], parameters)}
        report = ParamValidator().validate(request, model.operation_model(operation).input_shape)
        assert not report.has_errors(), f"{step['Name']}: {report.generate_report()}"
        checked += 1
    assert checked >= 9


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_processing_steps_programs_parse_their_arguments(name):
    definition = definition_of(name)
    steps = all_steps(definition)
    for step_name, model in PROCESSING_PROGRAMS.items():
        if step_name not in steps:
            continue
        arguments = at_defaults(steps[step_name]["Arguments"], defaults_of(definition))
        specification, program = arguments["AppSpecification"], step_name.removesuffix("Phase2").lower()
        assert specification["ContainerEntrypoint"] == ["python", "-m", "steps", program]
        assert parse(model, specification["ContainerArguments"], program)
        # Limits of the API.
        assert len(specification["ContainerArguments"]) <= 100
        assert all(len(argument) <= 256 for argument in specification["ContainerArguments"])


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_training_and_trials_parse_their_hyperparameters(name):
    definition = definition_of(name)
    steps, parameters = all_steps(definition), defaults_of(definition)
    tuned = {"learning_rate": "1e-4", "micro_batch_size": "16", "caption_dropout": "0.1"}
    for step in (step for step in steps.values() if step["Type"] == "Training"):
        train = at_defaults(step["Arguments"], parameters)["HyperParameters"]
        assert from_texts(TrainArguments, {**train, **tuned}, "hyperparameters")
    tune = at_defaults(steps["Tune"]["Arguments"], parameters)["TrainingJobDefinition"]["StaticHyperParameters"]
    own = {key: value for key, value in tune.items() if not key.startswith("_tuning")}
    assert from_texts(TrainArguments, {**own, **tuned}, "hyperparameters")


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_endpoint_reads_the_environment_of_its_model(name):
    definition = definition_of(name)
    create_model = at_defaults(all_steps(definition)["CreateModel"]["Arguments"], defaults_of(definition))
    environment = create_model["PrimaryContainer"]["Environment"]
    served = {key[6:].lower(): value for key, value in environment.items() if key.startswith("SERVE_")}
    settings = load_settings(Path("params") / f"{name}.yaml")
    assert from_texts(ServeArguments, served, "environment").queue_size == settings.endpoint.queue_size


def test_steps_are_of_their_kinds():
    steps = all_steps(definition_of("local"))
    assert {name: step["Type"] for name, step in steps.items()} == KINDS


def test_a_random_search_is_seeded_and_a_bayesian_one_learns():
    searches = {name: all_steps(definition_of(name))["Tune"]["Arguments"] for name in ("local", "octank_100gb")}
    assert searches["local"]["HyperParameterTuningJobConfig"]["RandomSeed"] == 1
    assert searches["octank_100gb"]["HyperParameterTuningJobConfig"]["Strategy"] == "Bayesian"
    assert "RandomSeed" not in searches["octank_100gb"]["HyperParameterTuningJobConfig"]


def test_train_takes_the_best_trials_hyperparameters():
    hyperparameters = all_steps(definition_of("local"))["Train"]["Arguments"]["HyperParameters"]
    for name in ("learning_rate", "micro_batch_size", "caption_dropout"):
        assert hyperparameters[name] == {"Get": f"Steps.Tune.BestTrainingJob.TunedHyperParameters['{name}']"}


def test_train_reads_latents_from_lustre_or_from_s3_by_parameter_set():
    lustre = all_steps(definition_of("local"))["Train"]["Arguments"]["InputDataConfig"][0]
    assert lustre["DataSource"]["FileSystemDataSource"]["FileSystemType"] == "FSxLustre"
    s3 = json.loads(build_definition(parse_settings("file_system: {kind: s3}", "x.yaml")))
    channel = all_steps(s3)["Train"]["Arguments"]["InputDataConfig"][0]
    assert channel["InputMode"] == "FastFile"
    assert channel["DataSource"]["S3DataSource"]["S3DataType"] == "S3Prefix"


def test_the_loader_itself_may_read_the_latents_from_s3():
    text = "file_system: {kind: s3_direct}\nthroughput: {micro_batch_sizes: [32]}"
    definition = json.loads(build_definition(parse_settings(text, "x.yaml")))
    steps = all_steps(definition)
    tune = steps["Tune"]["Arguments"]["TrainingJobDefinition"]
    for request in (steps["Train"]["Arguments"], steps["Throughput"]["Arguments"], tune):
        assert [channel["ChannelName"] for channel in request["InputDataConfig"]] == ["pretrained"]
        hyperparameters = request.get("HyperParameters") or request["StaticHyperParameters"]
        latents = "Steps.Encode.ProcessingOutputConfig.Outputs['latents'].S3Output.S3Uri"
        assert latents in json.dumps(hyperparameters["latents_uri"])


def test_encoders_are_told_what_to_do_by_a_channel_of_latents():
    text = "file_system: {kind: s3_direct}\nencode: {max_train_rows: 8192}\nencoders: {instance_count: 1}"
    train = all_steps(json.loads(build_definition(parse_settings(text, "x.yaml"))))["Train"]["Arguments"]
    assert [channel["ChannelName"] for channel in train["InputDataConfig"]] == ["latents", "pretrained"]
    assert not train["HyperParameters"].get("latents_uri")


def test_metric_definitions_cover_the_training_log():
    train = all_steps(definition_of("local"))["Train"]["Arguments"]["AlgorithmSpecification"]["MetricDefinitions"]
    assert [metric["Name"] for metric in train] == [*TRAINING_METRICS, *CHECKPOINT_METRICS]
    # A limit of the API.
    assert len(train) <= 40


def test_gate_message_names_numbers_intervals_thresholds_and_pictures():
    message = json.dumps(all_steps(definition_of("local"))["GateFailed"]["Arguments"])
    for metric, threshold in (("fid", "MaxFid"), ("clip_score", "MinClipScore")):
        for part in ("value", "low", "high"):
            assert f"metrics.{metric}.{part}" in message
        assert f"Parameters.{threshold}" in message
    assert "Outputs['evaluation']" in message


COMPARING = """
gate:
  max_fid_above_pretrained: 0.5
  max_clip_score_below_pretrained: 0.01
  max_fid_above_approved: 1.0
  max_clip_score_below_approved: 0.0
data: {reference_uri: s3://bucket/reference/coco/256px}
evaluate: {captions: s3://bucket/captions/coco_30k.tsv}
"""


def test_gate_compares_with_other_models_where_the_parameter_set_asks_for_it():
    definition = json.loads(build_definition(parse_settings(COMPARING, "x.yaml")))
    steps = all_steps(definition)
    judged = {
        condition["LeftValue"]["Std:JsonGet"]["Path"]: (condition["Type"], condition["RightValue"]["Get"])
        for condition in steps["QualityGate"]["Arguments"]["Conditions"]
        if condition["Type"] != "Or"
    }
    message = json.dumps(steps["GateFailed"]["Arguments"])
    for metric, name in (
        ("fid_above_pretrained", "MaxFidAbovePretrained"),
        ("clip_score_below_pretrained", "MaxClipScoreBelowPretrained"),
        ("fid_above_approved", "MaxFidAboveApproved"),
        ("clip_score_below_approved", "MaxClipScoreBelowApproved"),
    ):
        assert judged[f"metrics.{metric}.high"] == ("LessThanOrEqualTo", f"Parameters.{name}")
        assert f"metrics.{metric}.low" in message
        assert f"Parameters.{name}" in message
    assert defaults_of(definition)["MaxFidAboveApproved"] == 1.0
    evaluate = steps["Evaluate"]["Arguments"]
    arguments = at_defaults(evaluate["AppSpecification"]["ContainerArguments"], defaults_of(definition))
    parsed = parse(EvaluateArguments, arguments, "evaluate")
    assert (parsed.require_pretrained, parsed.approved_model) == (True, "none")
    assert parsed.captions == "s3://bucket/captions/coco_30k.tsv"
    inputs = {item["InputName"]: item["S3Input"]["S3Uri"] for item in evaluate["ProcessingInputs"]}
    assert inputs["reference"] == "s3://bucket/reference/coco/256px"


@pytest.mark.parametrize("margin", [0.1, 0.0])
@pytest.mark.parametrize("clip_score", [0.9, 0.1])
@pytest.mark.parametrize("above_untrained", [-1.0, 0.0])
def test_the_clip_score_counts_where_the_clip_can_judge_and_the_untrained_model_where_it_cannot(
    margin: float, clip_score: float, above_untrained: float
):
    definition = definition_of("local")
    paths = {
        "metrics.fid.value": 1.0,
        "metrics.clip_score.value": clip_score,
        "metrics.clip_score_margin.low": margin,
        "metrics.fid_above_untrained.high": above_untrained,
    }
    parameters = defaults_of(definition)

    def resolve(value):
        if not isinstance(value, dict):
            return value
        if "Get" in value:
            return parameters[value["Get"].removeprefix("Parameters.")]
        return paths[value["Std:JsonGet"]["Path"]]

    conditions = all_steps(definition)["QualityGate"]["Arguments"]["Conditions"]
    passes = all(holds(condition, resolve) for condition in conditions)
    assert passes is (clip_score > 0.6 if margin > 0 else above_untrained < 0)


def test_a_gate_that_compares_with_nothing_has_no_parameter_for_it():
    names = {parameter["Name"] for parameter in definition_of("local")["Parameters"]}
    assert not [name for name in names if "Above" in name or "Below" in name]


def test_no_cached_steps_request_holds_an_execution_id():
    for step in all_steps(definition_of("local")).values():
        if step.get("CacheConfig"):
            assert "Execution." not in json.dumps(step["Arguments"]), step["Name"]


def test_every_parameter_is_described_and_used():
    definition = definition_of("local")
    body = json.dumps(definition["Steps"])
    for parameter in definition["Parameters"]:
        assert len(parameter["Description"]) > 10
        assert f"Parameters.{parameter['Name']}" in body, parameter["Name"]


def test_same_settings_give_the_same_bytes():
    assert build_definition(load_settings(Path("params/local.yaml"))) == text_of("local")


def test_two_gpu_counts_differ_in_the_count_alone():
    four = definition_of("local")
    eight = json.loads(
        build_definition(
            parse_settings(
                Path("params/local.yaml")
                .read_text()
                .replace("ml.c5.large, instance_count: 2", "ml.c5.large, instance_count: 8"),
                "x.yaml",
            )
        )
    )
    changed = [a["Name"] for a, b in zip(four["Parameters"], eight["Parameters"], strict=True) if a != b]
    assert changed == ["TrainingInstanceCount"]
    assert four["Steps"] == eight["Steps"]


def test_definition_needs_no_credentials_no_region_and_no_network(tmp_path):
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        # Any connection would go here and be refused.
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    command = [str(Path(sys.executable).parent / "sd-pipeline"), "definition", "--params", "params/local.yaml"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == text_of("local") + "\n"
    assert done.stderr == ""


def test_an_asynchronous_endpoint_is_one_key_of_the_set():
    settings = load_settings(Path("params/octank_100gb.yaml"))
    changed = settings.endpoint.model_copy(update={"asynchronous": True, "concurrent_invocations": 4})
    definition = json.loads(build_definition(settings.model_copy(update={"endpoint": changed})))
    arguments = at_defaults(all_steps(definition)["EndpointConfig"]["Arguments"], defaults_of(definition))
    output = {
        name: arguments["AsyncInferenceConfig"]["OutputConfig"][name] for name in ("S3OutputPath", "S3FailurePath")
    }
    prefix = f"s3://{settings.account.bucket}/async/{settings.endpoint.name}"
    assert output == {"S3OutputPath": f"{prefix}/answers", "S3FailurePath": f"{prefix}/failures"}
    assert arguments["AsyncInferenceConfig"]["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 4}
    assert "AsyncInferenceConfig" not in all_steps(definition_of("octank_100gb"))["EndpointConfig"]["Arguments"]
    report = ParamValidator().validate(
        arguments,
        botocore.session.get_session()
        .get_service_model("sagemaker")
        .operation_model("CreateEndpointConfig")
        .input_shape,
    )
    assert not report.has_errors(), report.generate_report()
    # Its hosts are told that a queue stands before them; the package is not, since production may answer at once.
    told = {"SERVE_TIMEOUT_S": "3600.0", "SERVE_SHED_LOAD": "false"}
    made = all_steps(definition)["CreateModel"]["Arguments"]["PrimaryContainer"]["Environment"]
    assert told.items() <= made.items()
    (package,) = [step for name, step in all_steps(definition).items() if name.startswith("Register")]
    assert '"SERVE_TIMEOUT_S": "55.0"' in json.dumps(package)
    assert "SERVE_SHED_LOAD" not in json.dumps(package)


def test_features_bring_the_evaluator_to_encode() -> None:
    text = Path("params/local.yaml").read_text().replace("encode:\n", "encode:\n  features: clip\n  features_side: 2\n")
    step = all_steps(json.loads(build_definition(priced(parse_settings(text, "x.yaml")))))["Encode"]["Arguments"]
    names = [item["InputName"] for item in step["ProcessingInputs"]]
    assert names == ["shards", "pretrained", "evaluator"]
    words = step["AppSpecification"]["ContainerArguments"]
    assert words[words.index("--features") + 1] == "clip" and words[words.index("--features-side") + 1] == "2"


@pytest.mark.parametrize(
    ("name", "drawn", "served"),
    [
        ("local", ["dpm++", "15"], ()),
        ("sd2_base", ["dpm++", "25"], ()),
        ("sd3_budget", ["dpm++", "28"], ("guidance_scale=7.5", "inference_steps=25")),
    ],
)
def test_evaluate_draws_as_the_endpoint_or_is_told_how_that_differs(
    name: str, drawn: list[str], served: tuple[str, ...]
):
    definition = definition_of(name)
    specification = all_steps(definition)["Evaluate"]["Arguments"]["AppSpecification"]
    arguments = parse(
        EvaluateArguments, at_defaults(specification["ContainerArguments"], defaults_of(definition)), "evaluate"
    )
    assert [arguments.sampler, str(arguments.inference_steps)] == drawn
    assert sorted(arguments.served) == sorted(served)
