"""What this host of a job can do: its GPUs and disk, its network, its storage, and the job's other hosts.

    python -m steps probe --results-uri s3://BUCKET/tuning/sd-pipeline-probe/ID --writes s3://BUCKET/shards ...

`sd-pipeline probe` starts it as jobs of the real image, role and network. Prints a line for each check and writes them
all to <results uri>/<job>/<host>.json. A check that fails does not end the program: what can be measured is measured.
The exit status is 1 where the result cannot be written; the reason then says what S3 answered.
"""

from __future__ import annotations

import importlib.util
import json
import os

from botocore.exceptions import BotoCoreError, ClientError

from params.arguments import parse
from params.programs import ProbeArguments
from params.s3 import join_uri
from steps.container import Container
from steps.errors import StepError
from steps.probing.host import look_at_host
from steps.probing.measurements import Measurements
from steps.probing.network import look_at_network
from steps.probing.storage import look_at_storage, write_result
from steps.progress import Progress


def main(argv: list[str]) -> int:
    """Measure this host, or be one of its ranks where torchrun started this process; return the exit status."""
    arguments = parse(ProbeArguments, argv, "probe")
    if arguments.rank_file:
        from steps.probing.ranks import measure_as_rank

        return measure_as_rank(arguments, os.environ)
    measurements = Measurements(Container())
    _measure(arguments, measurements)
    _write(arguments, measurements)
    return 0


def _measure(arguments: ProbeArguments, measurements: Measurements) -> None:
    progress = Progress("Probe", 4, "parts", every_s=0.0)
    sound = look_at_host(arguments, measurements)
    progress.advance()
    look_at_network(arguments, measurements)
    progress.advance()
    # Before the storage: a host that waits for its file system does not let the others wait for it.
    if sound and importlib.util.find_spec("torch") is not None:
        from steps.probing.ranks import look_at_ranks

        look_at_ranks(arguments, measurements)
    progress.advance()
    look_at_storage(arguments, measurements)
    progress.advance()


def _write(arguments: ProbeArguments, measurements: Measurements) -> None:
    container = measurements.container
    content = json.dumps(measurements.as_dict()).encode()
    uri = join_uri(arguments.results_uri, container.job_name, f"{container.cluster().current_host}.json")
    if not arguments.results_uri:
        return
    try:
        write_result(uri, content, arguments.region)
    except (ClientError, BotoCoreError) as error:
        raise StepError(f"the result of the probe cannot be written to {uri}: {error}") from None
