"""`sd-pipeline local up | down | status | console`: the control plane on this machine."""

import typer

from params.settings import load_settings
from pipeline_definition.commands import options
from pipeline_definition.commands.checks import cloud_of, engine_of
from pipeline_definition.commands.consoles import local_console
from pipeline_definition.commands.options import Reply, say

app = typer.Typer(help="The local control plane: SageMaker's API on this machine.", no_args_is_help=True)
app.command("console")(local_console)


@app.command()
def up(
    params: options.Params = options.LOCAL_PARAMS,
    state: options.State = options.DEFAULT_STATE,
    runs: options.Runs = options.DEFAULT_RUNS,
    backend: options.Backend = "process",
) -> Reply:
    """Start the local control plane and leave it running; endpoints of earlier runs come back.

    It is as unlike a laptop as `local.cloud:` of the parameter set says: docs/operations.md has the switches.

    Example: sd-pipeline local up && sd-pipeline models list --local --params params/local.yaml
    """
    from pipeline_definition.local.client import ensure_up

    engine_of(backend)
    cloud = cloud_of(load_settings(params))
    plane = ensure_up(state, runs, leash=False, backend=backend, cloud=cloud)
    switches = cloud.model_dump(mode="json", exclude_defaults=True)
    line = f"up at {plane.url} (pid {plane.pid}); `sd-pipeline local down` stops it"
    turned_on = (f"local.cloud: {name} {value}" for name, value in switches.items())
    return Reply({"url": plane.url, "pid": plane.pid, "cloud": switches}, line, *turned_on)


@app.command()
def down(state: options.State = options.DEFAULT_STATE) -> None:
    """Stop the local control plane, its jobs and its endpoints; its state stays in the state folder.

    Example: sd-pipeline local down
    """
    from pipeline_definition.local.client import down as stop_plane

    say("stopped" if stop_plane(state) else f"nothing is up on {state}")


@app.command()
def status(state: options.State = options.DEFAULT_STATE) -> Reply:
    """Report whether the local control plane is up; exit status 1 if not.

    Example: sd-pipeline local status
    """
    from pipeline_definition.local.client import is_up

    plane = is_up(state)
    if plane is None:
        return Reply(None, f"nothing is up on {state}", status=1)
    return Reply({"url": plane.url, "pid": plane.pid}, f"up at {plane.url} (pid {plane.pid})")
