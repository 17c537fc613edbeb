"""The fix for what AWS says: a refusal of its API, or the reason why a job or an endpoint failed.

Reads texts; writes nothing. AWS names the fault, in its own words, and seldom what to do.
"""

from __future__ import annotations

import re
from typing import Final

# What a definition holds beyond its published schema, and how to do without: docs/operations.md has the list.
WITHOUT: Final = {
    "InstanceGroups": "leave out encoders and encode.max_train_rows: the same training, from stored latents",
    "InstanceGroupNames": "leave out encoders and encode.max_train_rows: the same training, from stored latents",
    "InstancePreferences": "leave out instance_preferences: one type, or another by --set",
    "InstancePools": "leave out endpoint.job.instance_preferences",
    "TrainingPlanArn": "leave out training_plan: on demand",
    "TrainingPlanArns": "leave out training_plan: on demand",
    "CapacityReservationConfig": "leave out endpoint.capacity_reservation: on demand",
    "RandomSeed": "set tune.strategy to Bayesian",
    "InferenceAmiVersion": "set endpoint.inference_ami_version to none",
}
# The words of a fault, and its fix; a group of the pattern fills the braces.
FIXES: Final = (
    (
        r"CapacityError|Insufficient\w*Capacity",
        "take another instance type or zone, or start again later: finished steps are kept",
    ),
    (
        r"Throttling|Rate exceeded|TooManyRequests",
        "ask again in a minute; other programs of the account use up what AWS answers in a second",
    ),
    (r"not authorized to perform:? (\w[\w-]*:\w+)", "allow {} in the policy of the user or role that asks"),
    (
        r"\((?:AccessDenied|AccessDeniedException|403)\) when calling the (\w+) operation",
        "allow {} in the policy of the user or role that asks",
    ),
    (
        r"(s3://\S+) \(AccessDenied|AccessDenied\S* .*?(s3://\S+)",
        "allow the jobs' role to read and write {}, or move it to the run's own bucket",
    ),
    (r"ResourceLimitExceeded", "ask Service Quotas for more, or use fewer hosts"),
    (
        r"Member must have length less than or equal to (\d+)",
        "choose a shorter name: AWS appends to it, and takes {} characters",
    ),
    (
        r"Could not connect to the endpoint URL|Connect timeout on endpoint URL|ConnectTimeout",
        "look at the network; inside a network without a NAT gateway the service needs an interface endpoint",
    ),
    (
        r"min_yield: 0 of .* no_connection",
        "give the hosts a way out: `sd-pipeline infra deploy --set InternetAccess=true` adds a NAT gateway",
    ),
    (r"No space left on device", "raise volume_size_gb in the section of the step's job"),
    (r"spot capacity was taken back", "start again: it goes on from its checkpoint; or set spot to false"),
)
_UNKNOWN_MEMBER: Final = re.compile(r"[Uu]nknown (?:Argument )?member '(\w+)'")


def fix_of(text: str) -> str:
    """Return the fix for what AWS says; nothing where it is not known, or stands there already."""
    if re.search(r"\bfix: ", text, re.IGNORECASE):
        return ""
    if member := _UNKNOWN_MEMBER.search(text):
        return WITHOUT.get(member[1], f"leave out the setting that {member[1]} comes from, or update the SDK")
    for pattern, fix in FIXES:
        if match := re.search(pattern, text):
            return fix.format(next(filter(None, match.groups()), ""))
    return ""


def with_fix(text: str) -> str:
    """Return a fault with its fix in its first line, where the fix is known."""
    first, newline, rest = text.partition("\n")
    fix = fix_of(text)
    return f"{first.rstrip('. ')}. Fix: {fix}{newline}{rest}" if fix else text
