"""May the role of the jobs read what lies in other buckets? IAM is asked, as S3 will ask it hours later.

Reads iam:SimulatePrincipalPolicy and s3:GetBucketPolicy of one target; writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from params.s3 import error_code, split_uri
from params.settings import Settings
from pipeline_definition.checks.addresses import foreign_addresses
from pipeline_definition.checks.findings import Finding
from pipeline_definition.jobs.planned import Values
from pipeline_definition.session import Target


def permission_findings(settings: Settings, values: Values, target: Target) -> Iterator[Finding]:
    """Check each address in another bucket than the run's own; what another account's bucket says of itself counts."""
    role, iam = settings.account.role_arn, target.client("iam")
    for name, address in foreign_addresses(settings, values).items():
        bucket, key = split_uri(address)
        if denied := _denied(iam, role, bucket, key):
            problem = f"{role} may not {' and '.join(denied)} on {address}"
            fix = f"allow it in the role's policy, or copy the data into {values.text('Bucket')}"
            if named := _names_role(target, bucket, role):
                fix = f"the policy of {bucket} names the role or its account, which may be enough; {fix}"
            yield Finding(name, problem, fix, blocking=not named)


def _denied(iam: Any, role: str, bucket: str, key: str) -> list[str]:
    """Return the actions that the role's own policies do not allow."""
    partition = role.split(":")[1]
    arn = f"arn:{partition}:s3:::{bucket}"
    wanted = {"s3:ListBucket": arn, "s3:GetObject": f"{arn}/{key}{'*' if not key or key.endswith('/') else ''}"}
    denied = []
    for action, resource in wanted.items():
        answer = iam.simulate_principal_policy(PolicySourceArn=role, ActionNames=[action], ResourceArns=[resource])
        if any(result["EvalDecision"] != "allowed" for result in answer["EvaluationResults"]):
            denied.append(action)
    return denied


def _names_role(target: Target, bucket: str, role: str) -> bool:
    """Whether a bucket's own policy may let the role in: where it names role, account or everybody, or is not shown."""
    try:
        policy = json.loads(target.client("s3").get_bucket_policy(Bucket=bucket)["Policy"])
    except ClientError as error:
        return error_code(error) != "NoSuchBucketPolicy"
    account = role.split(":")[4]
    allows = [one for one in policy.get("Statement", ()) if one.get("Effect") == "Allow"]
    principals = json.dumps([one.get("Principal") for one in allows])
    return account in principals or '"*"' in principals
