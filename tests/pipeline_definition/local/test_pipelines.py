"""Pipelines and their versions, as CreatePipeline, UpdatePipeline and their neighbours answer."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.pipeline_definition.local.conftest import ROLE, World, processing

TOKEN = "t" * 32


def definition(*arguments: str) -> str:
    return json.dumps({"Version": "2020-12-01", "Metadata": {}, "Steps": [processing("P", "say", *arguments)]})


@pytest.fixture(scope="module")
def sagemaker(world: World) -> Iterator[Any]:
    yield world.client("sagemaker", Config(retries={"total_max_attempts": 1}))


def make(sagemaker: Any, name: str, *texts: str) -> None:
    first, *rest = texts
    about = {"PipelineName": name, "RoleArn": ROLE, "ClientRequestToken": TOKEN}
    sagemaker.create_pipeline(PipelineDefinition=definition(first), **about)
    for text in rest:
        sagemaker.update_pipeline(PipelineName=name, PipelineDefinition=definition(text))


def test_the_version_that_is_asked_for_runs(world: World, sagemaker: Any) -> None:
    make(sagemaker, "two", "one", "two")
    arns = [
        sagemaker.start_pipeline_execution(PipelineName="two", **version)["PipelineExecutionArn"]
        for version in ({"PipelineVersionId": 1}, {})
    ]
    assert [world.wait(arn)["PipelineVersionId"] for arn in arns] == [1, 2]
    assert ["one" in world.log(arn, "P/algo-1.log") for arn in arns] == [True, False]
    with pytest.raises(ClientError, match="has no version 77"):
        sagemaker.start_pipeline_execution(PipelineName="two", PipelineVersionId=77)
    listed = sagemaker.list_pipeline_versions(PipelineName="two")["PipelineVersionSummaries"]
    assert [version["PipelineVersionId"] for version in listed] == [2, 1]


def test_a_definition_that_is_the_same_is_no_new_version(sagemaker: Any) -> None:
    make(sagemaker, "same", "one", "one")
    assert len(sagemaker.list_pipeline_versions(PipelineName="same")["PipelineVersionSummaries"]) == 1


def test_a_pipeline_is_found_by_its_arn_and_in_each_of_its_versions(sagemaker: Any) -> None:
    make(sagemaker, "found", "one", "two")
    by_arn = sagemaker.describe_pipeline(PipelineName="arn:aws:sagemaker:us-east-1:123456789012:pipeline/found")
    assert (by_arn["PipelineName"], by_arn["PipelineDefinition"]) == ("found", definition("two"))
    first = sagemaker.describe_pipeline(PipelineName="found", PipelineVersionId=1)
    assert first["PipelineDefinition"] == definition("one")


def test_the_same_request_to_create_a_pipeline_has_the_same_answer(sagemaker: Any) -> None:
    about = {"PipelineName": "once", "PipelineDefinition": definition("x"), "RoleArn": ROLE}
    assert len({sagemaker.create_pipeline(ClientRequestToken=TOKEN, **about)["PipelineArn"] for _ in range(2)}) == 1
    with pytest.raises(ClientError, match="already existing pipeline"):
        sagemaker.create_pipeline(ClientRequestToken="u" * 32, **about)


def test_a_pipeline_that_runs_is_kept_and_one_that_is_deleted_takes_its_executions_along(
    world: World, sagemaker: Any
) -> None:
    world.create("gone", [processing("P", "sleep", "30")])
    arn = world.start("gone")
    with pytest.raises(ClientError, match="has an execution that runs"):
        sagemaker.delete_pipeline(PipelineName="gone", ClientRequestToken=TOKEN)
    sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=TOKEN)
    world.wait(arn)
    sagemaker.delete_pipeline(PipelineName="gone", ClientRequestToken=TOKEN)
    make(sagemaker, "gone", "new")
    assert sagemaker.list_pipeline_executions(PipelineName="gone")["PipelineExecutionSummaries"] == []


def test_an_execution_can_be_renamed(world: World, sagemaker: Any) -> None:
    make(sagemaker, "named", "x")
    arn = world.start("named")
    sagemaker.update_pipeline_execution(PipelineExecutionArn=arn, PipelineExecutionDescription="new")
    assert world.wait(arn)["PipelineExecutionDescription"] == "new"


def test_pipelines_are_listed_by_the_beginning_of_their_names_page_by_page(sagemaker: Any) -> None:
    for name in ("listed-1", "listed-2", "listed-3"):
        make(sagemaker, name, "x")
    asked = {"PipelineNamePrefix": "listed", "SortBy": "Name", "SortOrder": "Ascending", "MaxResults": 2}
    first = sagemaker.list_pipelines(**asked)
    rest = sagemaker.list_pipelines(**asked, NextToken=first["NextToken"])
    names = [item["PipelineName"] for page in (first, rest) for item in page["PipelineSummaries"]]
    assert names == ["listed-1", "listed-2", "listed-3"]
    with pytest.raises(ClientError, match="NextToken 'abc'"):
        sagemaker.list_pipelines(NextToken="abc")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["Steps"][0].update(Name="../../../evil"),
        lambda d: d["Steps"][0].update(Name="a/b"),
        lambda d: d["Steps"][0].update(Name="s" * 65),
        lambda d: d.update(Parameters=[{"Name": "X", "Type": "String"}] * 2),
        lambda d: d["Steps"][0]["Arguments"]["AppSpecification"].update(ContainerArguments=["x" * 257]),
        lambda d: d["Steps"][0].update(Type="Transform"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    world: World, sagemaker: Any, change: Callable[[dict[str, Any]], None]
) -> None:
    made = json.loads(definition("x"))
    change(made)
    before = sorted(world.folder.rglob("*"))
    with pytest.raises(ClientError, match=r"ValidationException.*Unable to parse pipeline definition"):
        sagemaker.create_pipeline(
            PipelineName="no", PipelineDefinition=json.dumps(made), RoleArn=ROLE, ClientRequestToken=TOKEN
        )
    assert sorted(world.folder.rglob("*")) == before
