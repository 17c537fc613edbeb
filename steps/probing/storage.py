"""What the job's role may read and write in S3, and how late the file system is behind it.

Reads a byte of each address that jobs read. Writes an object of a few bytes below each prefix that jobs write to, and
deletes it where the role may; `sd-pipeline probe` deletes the rest.
"""

import time
from contextlib import suppress
from functools import partial
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from params.layout import LATENTS_CHANNEL, PROBE
from params.programs import ProbeArguments
from params.s3 import join_uri, split_uri
from steps.container import Container
from steps.errors import StepError
from steps.probing.measurements import Measurements
from steps.probing.network import client_of

POLL_S: Final = 0.5


def look_at_storage(arguments: ProbeArguments, measurements: Measurements) -> None:
    s3, container = client_of("s3", arguments.region), measurements.container
    name = f"{container.job_name}/{container.cluster().current_host}"
    for address in arguments.reads:
        measurements.take("reads", partial(_reads, s3, address), address, bucket=split_uri(address)[0])
    for prefix in arguments.writes:
        measurements.take(
            "writes", partial(_writes, s3, prefix, name), prefix, prefix=prefix, bucket=split_uri(prefix)[0]
        )
    if arguments.latents_uri:
        measurements.take("file_system", lambda: _imports(s3, arguments, container, name), arguments.latents_uri)


def _reads(s3: Any, address: str) -> str:
    bucket, prefix = split_uri(address)
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("Contents", [])
    if not listed:
        raise StepError(f"nothing is there. Fix: copy the data to {address}, or name where they are")
    key, began_s = listed[0]["Key"], time.monotonic()
    s3.get_object(Bucket=bucket, Key=key)["Body"].read(1)
    return f"read {key} in {1000 * (time.monotonic() - began_s):.0f} ms"


def _writes(s3: Any, prefix: str, name: str) -> str:
    bucket, key = split_uri(join_uri(prefix, PROBE, name))
    content, began_s = name.encode(), time.monotonic()
    s3.put_object(Bucket=bucket, Key=key, Body=content)
    if s3.get_object(Bucket=bucket, Key=key)["Body"].read() != content:
        raise StepError(f"what was read of s3://{bucket}/{key} is not what was written")
    text = f"written and read back in {1000 * (time.monotonic() - began_s):.0f} ms"
    try:
        s3.delete_object(Bucket=bucket, Key=key)
    except (ClientError, BotoCoreError):
        text += ", not deleted: the role may not, and need not"
    return text


def _imports(s3: Any, arguments: ProbeArguments, container: Container, name: str) -> str:
    """Write an object and wait until the file system shows it."""
    folder = container.channel_dir(LATENTS_CHANNEL)
    if not folder.is_dir():
        raise StepError(f"no file system is mounted at {folder}")
    bucket, key = split_uri(join_uri(arguments.latents_uri, PROBE, f"{name}.imported"))
    path = folder / PROBE / f"{name}.imported"
    began_s = time.monotonic()
    s3.put_object(Bucket=bucket, Key=key, Body=name.encode())
    try:
        while not path.is_file():
            if time.monotonic() - began_s > arguments.file_wait_s:
                raise StepError(f"{folder} is mounted, and a new object is not on it after {arguments.file_wait_s:g} s")
            time.sleep(POLL_S)
        seconds = time.monotonic() - began_s
        if path.read_bytes() != name.encode():
            raise StepError(f"{path} holds something else than its object in S3")
    finally:
        with suppress(ClientError, BotoCoreError):
            s3.delete_object(Bucket=bucket, Key=key)
    return f"mounted; a new object is there after {seconds:.1f} s"
