"""Are addresses, names and thresholds well-formed, and are they the operator's own rather than placeholders?

Reads settings, a definition and parameter values; writes nothing, needs no network.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from params import parameter_names as names
from params.layout import HELDOUT_CAPTIONS, MODEL_ARCHIVE, NO_MODEL
from params.settings import Settings
from pipeline_definition.checks.findings import Finding
from pipeline_definition.jobs.planned import PlannedJob, Values

# The values that the parameter sets are delivered with; nobody owns them.
PLACEHOLDER_ACCOUNT = "000000000000"
PLACEHOLDER_FILE_SYSTEM = re.compile(r"fs-0+")
ECR_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?"
    r"/(?P<repository>[a-z0-9]+([._/-][a-z0-9]+)*)(:(?P<tag>[\w][\w.-]{0,127})|@(?P<digest>sha256:[0-9a-f]{64}))"
)
LOCAL_IMAGE = re.compile(r"[a-z0-9]+([._/-][a-z0-9]+)*(:[\w][\w.-]{0,127})?")
S3_ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/(?P<key>.*))?")
BUCKET_PATTERN = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
ROLE = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/[\w+=,.@/-]+")
FILE_SYSTEM = re.compile(r"fs-[0-9a-f]{8,17}")
FILE_SYSTEM_PATH = re.compile(r"/[A-Za-z0-9_-]+(/[A-Za-z0-9_.-]+)+")
NAMES = {
    names.DATASET_NAME: re.compile(r"[a-zA-Z0-9][a-zA-Z0-9-]{0,62}"),
    names.TRAINING_RUN: re.compile(r"[a-zA-Z0-9][a-zA-Z0-9-]{0,62}"),
    names.MODEL_PACKAGE_GROUP: re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"),
    # The endpoint's configuration is named after it and the execution, in 63 characters.
    names.ENDPOINT_NAME: re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,49}"),
}
ADDRESSES = (names.URL_TABLE, names.PRETRAINED_MODEL, names.EVALUATOR, names.CAPTIONER)
# What is drawn, and which model it is compared with: these two may also be a word.
JUDGED = {
    names.EVALUATION_CAPTIONS: (HELDOUT_CAPTIONS, "s3://BUCKET/captions.tsv"),
    names.APPROVED_MODEL: (NO_MODEL, f"s3://BUCKET/FOLDER/{MODEL_ARCHIVE}"),
}
FILL = "take it from your stack with --stack NAME, or set it"


def address_findings(settings: Settings, values: Values, is_local: bool) -> Iterator[Finding]:
    """Check images, S3 addresses, bucket, role and names."""
    for name in (name for name in names.IMAGES if name in values):
        yield from _image_findings(name, values.text(name), settings.account.region, is_local)
    for name in (name for name in ADDRESSES if name in values):
        if not S3_ADDRESS.fullmatch(values.text(name)):
            yield Finding(name, f"{values.text(name)!r} is not an S3 address", "set it to s3://BUCKET/FOLDER/")
        elif PLACEHOLDER_ACCOUNT in values.text(name):
            yield Finding(name, "it is in the placeholder's bucket", FILL)
    for name, (word, example) in JUDGED.items():
        if name in values and values.text(name) != word and not S3_ADDRESS.fullmatch(values.text(name)):
            problem = f"{values.text(name)!r} is neither an S3 address nor {word!r}"
            yield Finding(name, problem, f"set it to {example}, or to {word}")
    if names.BUCKET in values and not BUCKET_PATTERN.fullmatch(bucket := values.text(names.BUCKET)):
        yield Finding(names.BUCKET, f"{bucket!r} is not the name of a bucket", "set it to the name alone")
    for name, pattern in NAMES.items():
        if name in values and not pattern.fullmatch(values.text(name)):
            yield Finding(name, f"{values.text(name)!r} does not match {pattern.pattern}", "choose another name")
    if not is_local:
        yield from _account_findings(settings, values)


def foreign_addresses(settings: Settings, values: Values) -> dict[str, str]:
    """Return the addresses that jobs read in other buckets than the run's own, by parameter or key of the set."""
    asked = {name: values.text(name) for name in (*ADDRESSES, *JUDGED) if name in values}
    asked["data.reference_uri"] = settings.data.reference_uri
    asked["download.blocklist_uri"] = settings.download.blocklist_uri
    buckets = {name: match["bucket"] for name, text in asked.items() if (match := S3_ADDRESS.fullmatch(text))}
    own = {settings.account.bucket, values.text("Bucket") if "Bucket" in values else ""}
    foreign = (name for name, bucket in buckets.items() if bucket not in own and PLACEHOLDER_ACCOUNT not in bucket)
    return {name: asked[name] for name in foreign}


def file_system_findings(
    definition: Mapping[str, Any], values: Values, jobs: list[PlannedJob], is_local: bool
) -> Iterator[Finding]:
    """Check the file system's id and path and that the jobs can reach it, where the definition uses one."""
    if '"FileSystemDataSource"' not in json.dumps(definition["Steps"]):
        return
    system, path, switch = values.text(names.FSX_ID), values.text(names.FSX_PATH), "or set file_system.kind to s3"
    if not FILE_SYSTEM.fullmatch(system):
        yield Finding(names.FSX_ID, f"{system!r} is not the id of a file system", f"set it to fs-..., {switch}")
    elif not is_local and PLACEHOLDER_FILE_SYSTEM.fullmatch(system):
        yield Finding(names.FSX_ID, "it is the placeholder's file system", f"{FILL}, {switch}")
    if not FILE_SYSTEM_PATH.fullmatch(path):
        fix = f"set it to /<mount name>/<folder linked to latents/>, {switch}"
        yield Finding(names.FSX_PATH, f"{path!r} is not a path on the file system", fix)
    outside = [job.step for job in jobs if job.kind == "training" and not job.in_network]
    if outside and not is_local:
        problem = f"{' and '.join(outside)} run outside any network and cannot reach FSx for Lustre"
        yield Finding("account.subnets", problem, f"name the file system's subnets and security groups, {switch}")


def threshold_findings(values: Values) -> Iterator[Finding]:
    """Check that the gate's thresholds are numbers on the metrics' scales."""
    max_fid, min_clip = _number(values.text(names.MAX_FID)), _number(values.text(names.MIN_CLIP_SCORE))
    if not max_fid >= 0 or math.isinf(max_fid):
        problem = f"{values.text(names.MAX_FID)} is not an FID: the gate could never pass or never fail"
        yield Finding(names.MAX_FID, problem, "set it to 0 or more; MLPerf's target is 90")
    if not -1 <= min_clip <= 1:
        fix = "set it between -1 and 1: a score of 15 on the scale of 100 is 0.15 here"
        yield Finding(names.MIN_CLIP_SCORE, f"{values.text(names.MIN_CLIP_SCORE)} is not a cosine", fix)
    for name in (name for name in names.MARGINS if name in values):
        if not math.isfinite(_number(values.text(name))):
            fix = "set it to 0 or to how much worse is good enough"
            yield Finding(name, f"{values.text(name)} is not a margin", fix)


def sample_findings(settings: Settings, values: Values) -> Iterator[Finding]:
    """Check that there are as many held-out pictures as evaluation and validation ask for."""
    asked, kept = values.integer(names.EVALUATION_SAMPLES), settings.encode.max_heldout_samples
    fraction, rows = settings.encode.heldout_fraction, values.integer(names.MAX_ROWS)
    if rows > 0:
        kept = min(kept, int(rows * fraction))
    fix = f"set it to {kept} or less, or raise encode.heldout_fraction ({fraction:g})"
    if asked < 2:
        yield Finding(names.EVALUATION_SAMPLES, f"{asked} pictures have no distance", "set it to 2 or more")
    elif asked > kept:
        problem = f"{asked:,} pictures, and at most {kept:,} captions are held out"
        yield Finding(names.EVALUATION_SAMPLES, problem, f"{fix} and encode.max_heldout_samples")
    if (validated := settings.train.validation_samples) > kept:
        problem = f"{validated:,} samples, and at most {kept:,} are held out"
        yield Finding("train.validation_samples", problem, fix)


def _image_findings(name: str, image: str, region: str, is_local: bool) -> Iterator[Finding]:
    if is_local:
        if not LOCAL_IMAGE.fullmatch(image) and not ECR_IMAGE.fullmatch(image):
            yield Finding(name, f"{image!r} is not an image", "set it to REPOSITORY:TAG")
        return
    match = ECR_IMAGE.fullmatch(image)
    if match is None:
        fix = "set it to ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY:TAG, as containers/build.sh prints it"
        yield Finding(name, f"{image!r} is not an image in ECR", fix)
    elif match["account"] == PLACEHOLDER_ACCOUNT:
        yield Finding(name, "it is the placeholder's image", f"containers/build.sh --push builds yours; {FILL}")
    elif match["region"] != region:
        problem = f"it is in {match['region']} and the jobs run in {region}"
        yield Finding(name, problem, f"push the image to {region}: SageMaker pulls from its own region only")


def _account_findings(settings: Settings, values: Values) -> Iterator[Finding]:
    # What the role of the jobs cannot read, as far as `infra deploy` made it; an account tells more.
    for name, address in foreign_addresses(settings, values).items():
        bucket = address.removeprefix("s3://").split("/")[0]
        problem = f"{address} is in the bucket {bucket}, and the role that `infra deploy` makes reads its own alone"
        fix = f"copy it there, or allow {settings.account.role_arn} s3:GetObject and s3:ListBucket on {bucket}"
        yield Finding(name, problem, fix, blocking=False)
    match = ROLE.fullmatch(settings.account.role_arn)
    if match is None:
        problem = f"{settings.account.role_arn!r} is not the ARN of a role"
        yield Finding("account.role_arn", problem, "set it to arn:aws:iam::ACCOUNT:role/NAME")
    elif match[1] == PLACEHOLDER_ACCOUNT:
        yield Finding("account.role_arn", "it is the placeholder's role", FILL)
    if PLACEHOLDER_ACCOUNT in values.text(names.BUCKET):
        yield Finding(names.BUCKET, "it is the placeholder's bucket", FILL)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
