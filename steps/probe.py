"""What this host of a job can do: its GPUs and disk, its network, its storage, and the job's other hosts.

    python -m steps probe --results-uri s3://BUCKET/tuning/sd-pipeline-probe/ID --writes s3://BUCKET/shards ...

`sd-pipeline probe` starts it as jobs of the real image, role and network. Prints a line for each check and writes them
all to <results uri>/<job>/<host>.json. A check that fails does not end the program: what can be measured is measured.
The exit status is 1 where the result cannot be written; the reason then says what S3 answered.
"""

import os

from botocore.exceptions import BotoCoreError, ClientError

from params.arguments import parse
from params.programs import ProbeArguments
from params.s3 import join_uri, split_uri
from steps.container import Container
from steps.errors import StepError
from steps.probing.host import has_torch, look_at_host
from steps.probing.measurements import Measurements
from steps.probing.network import client_of, look_at_network
from steps.probing.storage import look_at_storage
from steps.progress import Progress


def main(argv: list[str]) -> int:
    """Measure this host, or be one of its ranks where torchrun started this process; return the exit status."""
    arguments = parse(ProbeArguments, argv, "probe")
    if arguments.rank_file:
        from steps.probing.ranks import measure_as_rank

        return measure_as_rank(arguments, os.environ)
    measurements, progress = Measurements(Container()), Progress("Probe", 4, "parts", every_s=0.0)
    # The ranks before the storage: a host that waits for its file system does not let the others wait for it.
    for look in (look_at_host, look_at_network, _look_at_ranks, look_at_storage):
        look(arguments, measurements)
        progress.advance()
    if arguments.results_uri:
        _write(arguments, measurements)
    return 0


def _look_at_ranks(arguments: ProbeArguments, measurements: Measurements) -> None:
    if has_torch() and measurements.are_good("driver", "gpus"):
        from steps.probing.ranks import look_at_ranks

        look_at_ranks(arguments, measurements)


def _write(arguments: ProbeArguments, measurements: Measurements) -> None:
    container = measurements.container
    uri = join_uri(arguments.results_uri, container.job_name, f"{container.cluster().current_host}.json")
    bucket, key = split_uri(uri)
    try:
        client_of("s3", arguments.region).put_object(Bucket=bucket, Key=key, Body=measurements.as_json())
    except (ClientError, BotoCoreError) as error:
        raise StepError(f"the result of the probe cannot be written to {uri}: {error}") from None
