"""Copies of training pictures: asked for by one setting, judged by the gate where another asks it to."""

import json

import pytest

from params.settings import SettingsError, parse_settings
from tests.pipeline_definition.definitions import all_steps, at_defaults, built, defaults_of, definition_of

SET = """
file_system: {kind: s3}
encode: {descriptors: dinov2}
gate: {max_copies: 0.001}
phase_2: {training_samples: 2048, warmup_samples: 0}
"""


def test_a_set_that_does_not_ask_has_no_word_of_it() -> None:
    for name in ("local", "smoke_aws", "sd2_base"):
        text = json.dumps(definition_of(name)).lower()
        assert not any(word in text for word in ("descriptors", "copies"))


def test_the_first_encode_describes_the_pictures_and_evaluate_waits_for_it() -> None:
    definition = built(parse_settings(SET, "x.yaml"))
    steps = all_steps(definition)
    first, second = (json.dumps(steps[name]["Arguments"]) for name in ("Encode", "EncodePhase2"))
    assert "256px-descriptors" in first and '"OutputName": "descriptors"' in first
    assert '"InputName": "evaluator"' in first
    assert "descriptors" not in second
    evaluate = json.dumps(steps["Evaluate"]["Arguments"])
    assert "Steps.Encode.ProcessingOutputConfig.Outputs['descriptors'].S3Output.S3Uri" in evaluate
    words = at_defaults(steps["Encode"]["Arguments"], defaults_of(definition))["AppSpecification"]["ContainerArguments"]
    assert words[words.index("--descriptors") + 1] == "dinov2"


def test_the_gate_judges_the_upper_bound_of_the_share() -> None:
    definition = built(parse_settings(SET, "x.yaml"))
    asked = next(
        one for one in all_steps(definition)["QualityGate"]["Arguments"]["Conditions"] if "MaxCopies" in json.dumps(one)
    )
    assert asked["Type"] == "LessThanOrEqualTo"
    assert asked["LeftValue"]["Std:JsonGet"]["Path"] == "metrics.copies.high"
    assert defaults_of(definition)["MaxCopies"] == 0.001


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gate: {max_copies: 0.1}", r"gate\.max_copies: nothing finds copies; set encode\.descriptors"),
        (SET.replace("phase_2: {", "phase_2: {resolution_px: 128, "), r"pictures that the first one leaves out"),
        (
            SET.replace("phase_2: {", "phase_2: {encode_settings: {heldout_fraction: 0.5}, "),
            r"the first one leaves out",
        ),
    ],
)
def test_what_could_not_be_answered_is_refused(text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        parse_settings(text, "x.yaml")
