"""A request as code: what to paste in order to have a picture drawn again, by boto3, curl and Python alone."""

import json
from collections.abc import Mapping
from typing import Any

from pipeline_definition.prompting.endpoint import JSON, is_address

BOTO3 = """import boto3

body = {body!r}
answer = boto3.client("sagemaker-runtime").invoke_endpoint(
    EndpointName={name!r}, ContentType="application/json", Accept="image/png", Body=body.encode()
)
open("picture.png", "wb").write(answer["Body"].read())"""
PYTHON = """import urllib.request

body = {body!r}
headers = {{"Content-Type": "application/json", "Accept": "image/png"}}
request = urllib.request.Request({url!r}, body.encode(), headers)
open("picture.png", "wb").write(urllib.request.urlopen(request).read())"""
IN_AWS = """ --aws-sigv4 "aws:amz:$AWS_REGION:sagemaker" --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \\
    -H "x-amz-security-token: $AWS_SESSION_TOKEN" \\"""


def as_code(endpoint: str, request: Mapping[str, Any]) -> dict[str, str]:
    """Return code that has an endpoint, by its name or its address, draw one picture; by what it is written for."""
    body = json.dumps({name: value for name, value in request.items() if value is not None} | {"num_images": 1})
    name, url, signed = "your-endpoint", f"{endpoint}/invocations", " \\"
    if not is_address(endpoint):
        name, signed = endpoint.partition("/")[0], IN_AWS
        url = f"https://runtime.sagemaker.$AWS_REGION.amazonaws.com/endpoints/{name}/invocations"
    quoted = body.replace("'", "'\\''")
    headers = f'-H "Content-Type: {JSON}" -H "Accept: image/png"'
    code = {"curl": f"curl -o picture.png{signed}\n    {headers} \\\n    -d '{quoted}' \"{url}\""}
    code |= {"Python": PYTHON.format(body=body, url=url)} if is_address(endpoint) else {}
    return code | {"boto3": BOTO3.format(body=body, name=name)}
