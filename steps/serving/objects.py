"""What an endpoint reads at its start beside the model: files, objects of S3, and prefixes of them.

Writes into a folder that it is given. Whatever cannot be read is a StepError that names the setting.
"""

from pathlib import Path
from typing import Any

from params.s3 import SCHEME, split_uri
from steps.errors import StepError


def read(uri: str, setting: str) -> bytes:
    """Return the bytes of a file or of an s3:// object; none of an empty address."""
    if not uri:
        return b""
    if not uri.startswith(SCHEME):
        try:
            return Path(uri).read_bytes()
        except OSError as error:
            raise StepError(f"{setting}: {uri}: {error.strerror}") from None
    bucket, key = split_uri(uri)
    return bytes(_answer(uri, setting, lambda s3: s3.get_object(Bucket=bucket, Key=key)["Body"].read()))


def download(uri: str, folder: Path, setting: str, suffix: str = "") -> dict[str, Path]:
    """Write what lies under an s3:// prefix into a folder; return the files by their names below the prefix."""
    bucket, prefix = split_uri(uri.rstrip("/") + "/")
    files: dict[str, Path] = {}

    def fetch(s3: Any) -> None:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for key in (item["Key"] for item in page.get("Contents", ()) if item["Key"].endswith(suffix)):
                name = key.removeprefix(prefix)
                if not {"", ".", ".."} & set(name.split("/")):
                    files[name] = folder / name
                    files[name].parent.mkdir(parents=True, exist_ok=True)
                    s3.download_file(bucket, key, str(files[name]))

    _answer(uri, setting, fetch)
    return files


def _answer(uri: str, setting: str, ask: Any) -> Any:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return ask(boto3.client("s3"))
    except (BotoCoreError, ClientError) as error:
        raise StepError(f"{setting}: {uri} cannot be read: {error}") from None
