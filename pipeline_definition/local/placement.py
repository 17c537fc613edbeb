"""Where a host's program runs: in its image, or as a process of this Python with the image's command line."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline_definition.local.host_group import Host
from pipeline_definition.local.settings import LocalSettings, this_python


@dataclass(frozen=True)
class Program:
    """What a container runs."""

    image: str
    entry_point: tuple[str, ...]
    """Empty: the image's own."""
    arguments: tuple[str, ...]


def placed(settings: LocalSettings, program: Program, host: Host, mark: str) -> Host:
    """Return the host with the command line that starts its program here."""
    if settings.engine is None:
        entry_point = this_python(program.entry_point) or settings.images.entry_point(program.image)
        return replace(host, argv=(*entry_point, *program.arguments))
    # Channels of a file system, and objects in fast file mode, are links that lead out of the job's folder.
    shared = [folder for folder in (settings.file_systems_dir, settings.objects_dir) if folder.is_dir()]
    argv = settings.engine.run(
        program.image, program.entry_point, program.arguments, host.environment, host.folder, mark, shared
    )
    return replace(host, argv=argv)
