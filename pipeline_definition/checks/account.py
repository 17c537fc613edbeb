"""What only the account can answer: bucket, url table, models, images, hosts, file system, way out, the role's rights.

Reads S3, ECR, IAM, Service Quotas, SageMaker, FSx and EC2 of one target; writes nothing. Whether the jobs' role may
read what lies in other buckets, IAM is asked as S3 will ask it hours later.
"""

import csv
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from params.families import CONFIG_FILE, INDEX_FILE, Family, FamilyError, family_of
from params.layout import LATENTS
from params.parameter_names import BUCKET, FSX_ID, FSX_PATH, IMAGES, PRETRAINED_MODEL, URL_TABLE
from params.s3 import error_code, join_uri, split_uri, unless_missing
from params.settings import Settings
from pipeline_definition.checks.addresses import ECR_IMAGE, foreign_addresses
from pipeline_definition.checks.capacity import Capacity
from pipeline_definition.checks.findings import Finding, fix_of
from pipeline_definition.jobs.planned import PlannedJob, Values
from pipeline_definition.session import Target

MAX_CONFIG_BYTES = 1 << 20
TABLE_SUFFIXES = (".parquet", ".csv", ".tsv", ".csv.gz", ".tsv.gz")
# Kinds that name their columns line by line, or behind a compression that only a job unpacks.
LINE_SUFFIXES = tuple(
    kind + packed
    for kind in (".jsonl", ".ndjson", ".json", ".txt", ".csv", ".tsv")
    for packed in ("", ".gz", ".bz2", ".zst")
)


class AccountChecks:
    """The checks of one start against one target."""

    def __init__(self, settings: Settings, values: Values, jobs: list[PlannedJob], target: Target) -> None:
        self._settings, self._values, self._jobs, self._target = settings, values, jobs, target

    def findings(self) -> Iterator[Finding]:
        """Run every check that the target can answer; a check without permission is reported, and does not block."""
        uses_file_system, capacity = self._settings.file_system.kind == "fsx", Capacity(self._settings, self._target)
        hosts = self._settings.phases[0].instance_type_name
        yield from _guarded(BUCKET, self._bucket)
        yield from _guarded(URL_TABLE, self._url_table)
        yield from _guarded(PRETRAINED_MODEL, self._pretrained)
        if uses_file_system:
            yield from _guarded(FSX_ID, self._file_system)
        yield from _guarded(URL_TABLE, partial(permission_findings, self._settings, self._values, self._target))
        if self._target.is_local:
            return
        yield from _guarded("account.subnets", self._way_out)
        yield from _guarded(hosts, partial(capacity.zone_findings, self._jobs))
        for name in IMAGES:
            yield from _guarded(name, partial(self._image, name))
        if uses_file_system:
            yield from _guarded(FSX_PATH, self._link)
        yield from _guarded(hosts, partial(capacity.quota_findings, self._jobs))
        yield from _guarded("training_plan", partial(capacity.plan_findings, self._jobs))

    def _bucket(self) -> Iterator[Finding]:
        bucket = self._values.text(BUCKET)
        if unless_missing(self._target.client("s3").head_bucket, Bucket=bucket) is None:
            yield Finding(BUCKET, f"there is no bucket {bucket}", "`sd-pipeline infra deploy` makes one")

    def _url_table(self) -> Iterator[Finding]:
        address, download = self._values.text(URL_TABLE), self._settings.download
        if download.source != "urls":
            return
        columns = list(download.column_names) or url_table_columns(self._target, address)
        if columns is None:
            return
        if not columns:
            problem = f"{address} holds no parquet, CSV, TSV, JSON or text file that can be read"
            yield Finding(URL_TABLE, problem, "copy the url table there")
        for key in ("url_column", "caption_column") if columns else ():
            if (column := getattr(download, key)) not in columns:
                fix = f"set download.{key} to one of: {', '.join(columns)}"
                yield Finding(URL_TABLE, f"{address} has no column {column!r}", fix)

    def _pretrained(self) -> Iterator[Finding]:
        address = self._values.text(PRETRAINED_MODEL).rstrip("/")
        bucket, prefix = split_uri(join_uri(address, ""))
        try:
            family = _family(self._values, self._target)
        except FamilyError as error:
            yield Finding(PRETRAINED_MODEL, f"{address}: {error}", "copy a model of a known family there")
            return
        for file in family.config_files:
            if unless_missing(self._target.client("s3").head_object, Bucket=bucket, Key=prefix + file) is None:
                problem = f"{address} has no {file}"
                yield Finding(PRETRAINED_MODEL, problem, "copy the model there as diffusers saves it")
                return
        if not self._settings.gate.compares_with_pretrained:
            return
        address = f"{address}/{family.denoiser}"
        prefix = f"{prefix}{family.denoiser}/"
        objects = self._target.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
        if not any(item["Key"].endswith(".safetensors") for item in objects):
            problem = f"{address} has no weights, and the gate compares with the generic model"
            fix = "copy them there, or set gate.max_fid_above_pretrained and the like to null"
            yield Finding(PRETRAINED_MODEL, problem, fix)

    def _file_system(self) -> Iterator[Finding]:
        name = self._values.text(FSX_ID)
        _, own_mount, folder = self._values.text(FSX_PATH).split("/", 2)
        answer = unless_missing(self._target.client("fsx").describe_file_systems, FileSystemIds=[name])
        if not answer or not answer["FileSystems"]:
            fix = "take it from your stack with --stack NAME, or set file_system.kind to s3"
            yield Finding(FSX_ID, f"there is no file system {name} in {self._target.region}", fix)
            return
        system = answer["FileSystems"][0]
        if (state := system.get("Lifecycle", "AVAILABLE")) != "AVAILABLE":
            yield Finding(FSX_ID, f"file system {name} is {state}", "wait until it is AVAILABLE")
        mount = system.get("LustreConfiguration", {}).get("MountName") or own_mount
        if own_mount != mount:
            problem = f"{name} is mounted as {mount}, not {own_mount}"
            yield Finding(FSX_PATH, problem, f"set it to /{mount}/{folder}")

    def _link(self) -> Iterator[Finding]:
        folder = "/" + self._values.text(FSX_PATH).split("/", 2)[2]
        latents = f"s3://{self._values.text(BUCKET)}/{LATENTS}"
        chosen = [{"Name": "file-system-id", "Values": [self._values.text(FSX_ID)]}]
        answer = self._target.client("fsx").describe_data_repository_associations(Filters=chosen)
        links = {item.get("FileSystemPath"): item["DataRepositoryPath"] for item in answer["Associations"]}
        if links.get(folder, "").rstrip("/") != latents:
            problem = f"{folder} shows {links.get(folder) or 'nothing'}, and Encode writes to {latents}"
            yield Finding(FSX_PATH, problem, "link the two by a data repository association, as `infra deploy` does")

    def _image(self, name: str) -> Iterator[Finding]:
        match = ECR_IMAGE.fullmatch(self._values.text(name))
        assert match is not None  # checked before anything is asked
        image = {"imageTag": match["tag"]} if match["tag"] else {"imageDigest": match["digest"]}
        about = {"registryId": match["account"], "repositoryName": match["repository"], "imageIds": [image]}
        if unless_missing(self._target.client("ecr").describe_images, **about) is None:
            problem = f"{self._values.text(name)} is not in ECR"
            yield Finding(name, problem, "`containers/build.sh --push` puts it there and prints its tag")

    def _way_out(self) -> Iterator[Finding]:
        subnets = list(self._settings.account.subnets)
        inside = [job.step for job in self._jobs if job.program == "download" and job.in_network]
        if not inside or not subnets:
            return
        chosen = [{"Name": "association.subnet-id", "Values": subnets}]
        tables = self._target.client("ec2").describe_route_tables(Filters=chosen)["RouteTables"]
        ways = {route.get("DestinationCidrBlock") for table in tables for route in table["Routes"]}
        if "0.0.0.0/0" not in ways:
            problem = f"{inside[0]} fetches from the internet, and its subnets have no route there"
            fix = "`sd-pipeline infra deploy --set InternetAccess=true` adds a NAT gateway"
            yield Finding("account.subnets", problem, fix)


def url_table_columns(target: Target, address: str) -> list[str] | None:
    """Return the columns of a table's first file; empty: there is none; None: it must be read to its end to tell."""
    # Heavy, and needed by this check only.
    import pyarrow.parquet
    import s3fs

    credentials = target.boto_session().get_credentials().get_frozen_credentials()
    files = s3fs.S3FileSystem(
        key=credentials.access_key,
        secret=credentials.secret_key,
        token=credentials.token,
        endpoint_url=target.endpoint_url,
        client_kwargs={"region_name": target.region},
        skip_instance_cache=True,
    )
    try:
        suffixes = (*TABLE_SUFFIXES, *LINE_SUFFIXES)
        names = [address] if address.endswith(suffixes) else files.find(address)
        first = next((name for name in sorted(names) if name.endswith(TABLE_SUFFIXES)), "")
        if not first:
            return None if any(name.endswith(LINE_SUFFIXES) for name in names) else []
        if first.endswith(".parquet"):
            with files.open(first, "rb", block_size=2**16) as file:
                return list(pyarrow.parquet.read_schema(file).names)
        with files.open(first, "rt", block_size=2**16, compression="infer", encoding="utf-8", newline="") as lines:
            return next(csv.reader(lines, delimiter="\t" if ".tsv" in first[-7:] else ","))
    except (StopIteration, FileNotFoundError, pyarrow.ArrowInvalid):
        return []


def denoiser_config_of(values: Values, target: Target) -> dict[str, Any] | None:
    """Return the denoiser's configuration in the pretrained folder; None where it cannot be read: the checks told."""
    try:
        return _pretrained_json(values, target, f"{_family(values, target).denoiser}/{CONFIG_FILE}")
    except FamilyError:
        return None


def _family(values: Values, target: Target) -> Family:
    return family_of(_pretrained_json(values, target, INDEX_FILE))


def _pretrained_json(values: Values, target: Target, file: str) -> dict[str, Any] | None:
    bucket, prefix = split_uri(join_uri(values.text(PRETRAINED_MODEL).rstrip("/"), ""))
    try:
        body = target.client("s3").get_object(Bucket=bucket, Key=prefix + file)["Body"]
        config = json.loads(body.read(MAX_CONFIG_BYTES))
    except (ClientError, BotoCoreError, OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def _guarded(parameter: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    fix = "grant your own user this read permission to have it checked"
    try:
        return list(check())
    except ClientError as error:
        about, fix = error.response["Error"], fix_of(str(error)) or fix
        problem = f"{error.operation_name}: {about.get('Message') or about.get('Code')}"
    except (BotoCoreError, OSError) as error:
        problem = str(error)
    return [Finding(parameter, f"could not be checked: {problem}", fix, blocking=False)]


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
