"""Trainings in sequence: each later one gets the former one's model as a channel, and checkpoints of its own."""

import io
import json
import tarfile
from typing import Any

from tests.pipeline_definition.local.conftest import World, training


def join(separator: str, *values: Any) -> dict[str, Any]:
    return {"Std:Join": {"On": separator, "Values": list(values)}}


def later_training(number: int, former: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": {"Get": f"Steps.{former}.ModelArtifacts.S3ModelArtifacts"}}
    source["S3DataDistributionType"] = "FullyReplicated"
    checkpoints = join("/", "s3:/", "bucket", "checkpoints", join("-", {"Get": "Parameters.Run"}, f"phase{number}"))
    arguments = {
        "HyperParameters": {"do": "look"},
        "InputDataConfig": [
            {"ChannelName": "initial_model", "DataSource": {"S3DataSource": source}, "InputMode": "File"}
        ],
        "CheckpointConfig": {"S3Uri": checkpoints},
    }
    return training(f"TrainPhase{number}", arguments=arguments)


def test_each_later_training_gets_the_model_of_the_one_before(world: World) -> None:
    world.put("checkpoints/mine/001/manifest.json", b"{}")
    world.put("checkpoints/mine-phase2/002/manifest.json", b"{}")
    world.put("checkpoints/mine-phase3/003/manifest.json", b"{}")
    parameters = [{"Name": "Run", "Type": "String", "DefaultValue": "mine"}]
    world.create(
        "phases", [training("Train"), later_training(2, "Train"), later_training(3, "TrainPhase2")], parameters
    )
    found, steps = world.run("phases")
    assert found["PipelineExecutionStatus"] == "Succeeded"
    for number in (2, 3):
        name = steps[f"TrainPhase{number}"]["Metadata"]["TrainingJob"]["Arn"].rsplit("/", 1)[-1]
        with tarfile.open(fileobj=io.BytesIO(world.get(f"models/{name}/output/model.tar.gz"))) as archive:
            content = archive.extractfile(next(m for m in archive if m.name.endswith("algo-1.json")))
            assert content is not None
            seen = json.load(content)
        assert "input/data/initial_model/model.tar.gz" in seen
        own = [path for path in seen if path.startswith("checkpoints/")]
        assert own == [f"checkpoints/00{number}/manifest.json"]


def test_a_definition_too_long_for_a_request_is_run_and_told_from_s3(world: World) -> None:
    world.create("long", [training("Train")])
    text = world.sagemaker.describe_pipeline(PipelineName="long")["PipelineDefinition"]
    world.put("definitions/long.json", text.encode())
    place = {"Bucket": "bucket", "ObjectKey": "definitions/long.json"}
    world.sagemaker.update_pipeline(PipelineName="long", PipelineDefinitionS3Location=place)
    assert json.loads(world.sagemaker.describe_pipeline(PipelineName="long")["PipelineDefinition"]) == json.loads(text)
    found, _ = world.run("long")
    assert found["PipelineExecutionStatus"] == "Succeeded"


def test_two_instance_groups_are_processes_that_know_their_group(world: World) -> None:
    groups = [
        {"InstanceGroupName": "trainers", "InstanceType": "ml.p4d.24xlarge", "InstanceCount": 2},
        {
            "InstanceGroupName": "encoders",
            "InstanceType": "ml.g5.12xlarge",
            "InstanceCount": {"Get": "Parameters.Count"},
        },
    ]
    world.put("latents/manifest.json", b"{}")
    channel = {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/latents", "InstanceGroupNames": ["trainers"]}
    channel["S3DataDistributionType"] = "FullyReplicated"
    arguments = {
        "HyperParameters": {"do": "group"},
        "ResourceConfig": {"InstanceGroups": groups, "VolumeSizeInGB": 1},
        "InputDataConfig": [{"ChannelName": "latents", "DataSource": {"S3DataSource": channel}, "InputMode": "File"}],
    }
    parameters = [{"Name": "Count", "Type": "Integer", "DefaultValue": 1}]
    world.create("groups", [training("Train", arguments=arguments)], parameters)
    found, steps = world.run("groups")
    assert found["PipelineExecutionStatus"] == "Succeeded", steps
    name = steps["Train"]["Metadata"]["TrainingJob"]["Arn"].rsplit("/", 1)[-1]
    with tarfile.open(fileobj=io.BytesIO(world.get(f"models/{name}/output/model.tar.gz"))) as archive:
        files = {member.name.rsplit("/", 1)[-1]: archive.extractfile(member) for member in archive if member.isfile()}
        seen = {host: json.load(content) for host, content in files.items() if content is not None}
    assert {host: told["group"] for host, told in seen.items()} == {
        "algo-1.json": "trainers",
        "algo-2.json": "trainers",
        "algo-3.json": "encoders",
    }
    assert [told["files"] for _, told in sorted(seen.items())] == [["manifest.json"], ["manifest.json"], []]
