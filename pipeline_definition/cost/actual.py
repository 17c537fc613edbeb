"""What AWS billed for one run, by its tag: asks Cost Explorer, writes nothing.

sd-pipeline cost actual latest
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

# Cost Explorer is one service for all regions: https://docs.aws.amazon.com/general/latest/gr/billing.html
COST_EXPLORER_REGION = "us-east-1"
METRIC = "UnblendedCost"
# SageMaker puts it on the jobs of a pipeline; Billing has to be told to count by it, which takes a day.
RUN_TAG = "sagemaker:pipeline-execution-arn"


@dataclass(frozen=True)
class Billed:
    """What Cost Explorer knows of a run."""

    usd_by_service: Mapping[str, float]
    problem: str = ""
    """Why it knows nothing, and what to do; nothing: it does know."""

    @property
    def usd(self) -> float:
        return sum(self.usd_by_service.values())


def billed(client: Any, tag: str, value: str, start: datetime, end: datetime) -> Billed:
    """Return what was billed under a tag from the day of `start` to that of `end`, both included.

    What AWS refuses, or does not count by this tag, is a problem and no zero.
    """
    request = {
        "TimePeriod": {"Start": f"{start:%Y-%m-%d}", "End": f"{end + timedelta(days=1):%Y-%m-%d}"},
        "Granularity": "DAILY",
        "Metrics": [METRIC],
        "Filter": {"Tags": {"Key": tag, "Values": [value]}},
        "GroupBy": [{"Type": "DIMENSION", "Key": "SERVICE"}],
    }
    usd: dict[str, float] = defaultdict(float)
    try:
        while True:
            answer = client.get_cost_and_usage(**request)
            for group in (group for day in answer["ResultsByTime"] for group in day["Groups"]):
                usd[group["Keys"][0]] += float(group["Metrics"][METRIC]["Amount"])
            if not answer.get("NextPageToken"):
                break
            request["NextPageToken"] = answer["NextPageToken"]
    except (BotoCoreError, ClientError) as error:
        return Billed({}, f"Cost Explorer does not answer ({error}): it needs ce:GetCostAndUsage")
    if not usd:
        return Billed(
            {},
            f"Cost Explorer has no cost under the tag {tag}: activate it among Billing's cost allocation tags (costs"
            " count from then on, a day later), or name another with --tag",
        )
    return Billed(dict(usd))
