"""The fix for what AWS says, in its own words."""

from pathlib import Path

import pytest

from pipeline_definition.checks.findings import WITHOUT, fix_of, with_fix

SAID = {
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance "
    "type.": "another instance type",
    "An error occurred (ThrottlingException) when calling the DescribePipelineExecution operation: Rate exceeded": "in "
    "a minute",
    "User: arn:aws:iam::1:user/x is not authorized to perform: sagemaker:CreateEndpoint on resource: y": "allow "
    "sagemaker:CreateEndpoint",
    "ClientError: Data download failed:Unable to download object s3://b/k (AccessDenied: Access Denied)": "read and "
    "write s3://b/k",
    "An error occurred (ValidationException) when calling the CreatePipeline operation: Unable to parse pipeline "
    "definition. Unknown Argument member 'InstanceGroups'": "leave out encoders",
    "Unable to parse pipeline definition. Unknown Argument member 'NewThing'": "the setting that NewThing comes from",
    "Value 'x' at 'name' failed to satisfy constraint: Member must have length less than or equal to 63": "takes 63",
    'Could not connect to the endpoint URL: "https://logs.us-east-1.amazonaws.com/"': "interface endpoint",
    "OSError: [Errno 28] No space left on device: '/opt/ml/x'": "volume_size_gb",
    "AlgorithmError: min_yield: 0 of 95 rows became samples, 0.000, below 0.5; most frequent: no_connection 95": "NAT",
    "An error occurred (403) when calling the HeadObject operation: Forbidden": "allow HeadObject in the policy",
    "ResourceLimitExceeded: The account-level service limit is 0": "Service Quotas",
}


@pytest.mark.parametrize(("text", "fix"), SAID.items())
def test_each_fault_has_its_fix_once_in_the_first_line(text: str, fix: str) -> None:
    line = with_fix(f"{text}\nand the log's end")
    assert fix in line.splitlines()[0] and line.splitlines()[1] == "and the log's end"
    assert with_fix(line) == line


def test_what_is_not_known_stays_as_it_is() -> None:
    assert fix_of("AlgorithmError: ZeroDivisionError") == "" and with_fix("a\nb") == "a\nb"


def test_every_member_that_can_be_left_out_is_on_the_page() -> None:
    page = Path("docs/operations.md").read_text(encoding="utf-8")
    assert [member for member in WITHOUT if f"`{member}`" not in page] == []
