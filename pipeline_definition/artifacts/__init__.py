"""What a run left behind: gathered once, read again without a connection."""

from pipeline_definition.artifacts.collection import collect
from pipeline_definition.artifacts.folder import Artifacts

__all__ = ["Artifacts", "collect"]
