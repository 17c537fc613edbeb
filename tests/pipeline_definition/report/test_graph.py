import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_definition.report.graph import Node, step_graph
from pipeline_definition.report.run import Cost, RunStep
from pipeline_definition.report.steps import drawing as drawing_of
from tests.pipeline_definition.definitions import PARAMETER_SETS, all_steps, definition_of


def by_name(definition: dict[str, Any]) -> dict[str, Node]:
    return {node.name: node for node in step_graph(definition)}


def processing(name: str, *references: str, depends_on: tuple[str, ...] = ()) -> dict[str, Any]:
    inputs = [
        {"Get": f"Steps.{reference}.ProcessingOutputConfig.Outputs['x'].S3Output.S3Uri"} for reference in references
    ]
    return {"Name": name, "Type": "Processing", "Arguments": {"Inputs": inputs}, "DependsOn": list(depends_on)}


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_every_step_of_a_definition_is_drawn_once(name: str) -> None:
    definition = definition_of(name)
    assert [node.name for node in step_graph(definition)] == list(all_steps(definition))


def test_the_local_pipeline_is_one_line_with_a_branch_for_the_missed_gate() -> None:
    nodes = by_name(definition_of("local"))
    assert nodes["Download"].parents == ()
    assert nodes["Encode"].parents == ("Download",)
    assert nodes["Tune"].parents == ("Encode",)
    assert nodes["Train"].parents == ("Tune",)
    assert nodes["QualityGate"].parents == ("Evaluate",)
    assert nodes["Register"].parents == nodes["GateFailed"].parents == ("QualityGate",)
    assert nodes["Endpoint"].parents == ("EndpointConfig",)
    assert {name for name, node in nodes.items() if node.lane == 1} == {"GateFailed"}


def test_a_parent_that_another_parent_waits_for_is_left_out() -> None:
    nodes = by_name({"Steps": [processing("A"), processing("B", "A"), processing("C", "A", "B")]})
    assert nodes["C"].parents == ("B",)


def test_branches_that_run_side_by_side_get_lanes_of_their_own() -> None:
    steps = [processing("A"), processing("B", "A"), processing("C", depends_on=("A",)), processing("D", "B", "C")]
    nodes = by_name({"Steps": steps})
    assert (nodes["B"].rank, nodes["C"].rank) == (1, 1)
    assert nodes["B"].lane != nodes["C"].lane
    assert nodes["D"].parents == ("B", "C") and nodes["D"].rank == 2


@given(st.lists(st.lists(st.integers(0, 11), max_size=4), max_size=12))
def test_no_two_steps_share_a_place_and_parents_come_first(references: list[list[int]]) -> None:
    steps = [processing(f"S{i}", *{f"S{j}" for j in refs if j < i}) for i, refs in enumerate(references)]
    nodes = by_name({"Steps": steps})
    assert len({(node.rank, node.lane) for node in nodes.values()}) == len(nodes)
    assert all(nodes[parent].rank < node.rank for node in nodes.values() for parent in node.parents)


@pytest.mark.parametrize("direction", ["lying", "standing"])
def test_circles_keep_their_distance_and_stay_inside(direction: str) -> None:
    nodes = step_graph(definition_of("local"))
    drawing = drawing_of(direction, [RunStep(node, {}, "", Cost()) for node in nodes])
    for (_, x, y), (_, other_x, other_y) in itertools.combinations(drawing.stations, 2):
        assert (x - other_x) ** 2 + (y - other_y) ** 2 > 40**2
    assert all(16 <= x <= drawing.width and 16 <= y <= drawing.height - 16 for _, x, y in drawing.stations)
    assert len(drawing.lines) == sum(len(node.parents) for node in nodes)


def test_a_way_that_the_run_did_not_go_is_told_apart() -> None:
    nodes = step_graph(definition_of("local"))
    records = {node.name: {} if node.name == "GateFailed" else {"status": "Succeeded"} for node in nodes}
    drawing = drawing_of("lying", [RunStep(node, records[node.name], "", Cost()) for node in nodes])
    assert [travelled for _, travelled in drawing.lines].count(False) == 1
