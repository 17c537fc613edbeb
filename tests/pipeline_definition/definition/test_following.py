"""Prompt following: asked for by one setting, judged by the gate where another asks it to."""

import json

import pytest

from params.settings import SettingsError, parse_settings
from pipeline_definition.models.gate import Metric, thresholds
from tests.pipeline_definition.definitions import all_steps, at_defaults, built, defaults_of, definition_of

SET = """
file_system: {kind: s3}
evaluate: {following: detector, following_samples: 300}
gate: {min_prompt_following: 0.4}
"""


def test_a_set_that_does_not_ask_has_no_word_of_it() -> None:
    for name in ("local", "smoke_aws", "sd2_base"):
        text = json.dumps(definition_of(name)).lower()
        assert not any(word in text for word in ("following", "detector"))


def test_evaluate_is_told_who_counts() -> None:
    definition = built(parse_settings(SET, "x.yaml"))
    arguments = at_defaults(all_steps(definition)["Evaluate"]["Arguments"], defaults_of(definition))
    words = arguments["AppSpecification"]["ContainerArguments"]
    assert words[words.index("--following") + 1] == "detector"
    assert words[words.index("--following-samples") + 1] == "300"


def test_the_gate_judges_the_lower_bound_of_the_share() -> None:
    definition = built(parse_settings(SET, "x.yaml"))
    gate = all_steps(definition)["QualityGate"]["Arguments"]["Conditions"]
    asked = next(one for one in gate if "MinPromptFollowing" in json.dumps(one))
    assert asked["Type"] == "GreaterThanOrEqualTo"
    assert asked["LeftValue"]["Std:JsonGet"]["Path"] == "metrics.prompt_following.low"
    assert defaults_of(definition)["MinPromptFollowing"] == 0.4
    failed = json.dumps(all_steps(definition)["GateFailed"]["Arguments"])
    assert "and its lower bound must be at least MinPromptFollowing" in failed
    threshold = thresholds(definition, defaults_of(definition))["prompt_following"]
    assert threshold.is_met_by(Metric(0.45, 0.4, 0.5)) and not threshold.is_met_by(Metric(0.45, 0.39, 0.5))


def test_a_gate_on_what_nobody_counts_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"gate\.min_prompt_following: nobody counts; set evaluate\.following"):
        parse_settings("gate: {min_prompt_following: 0.4}", "x.yaml")
