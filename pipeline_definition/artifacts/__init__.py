"""What a run left behind: gathered once, read again without a connection."""

from pipeline_definition.artifacts.collection import collect
from pipeline_definition.artifacts.folder import Artifacts, ArtifactsError

__all__ = ["Artifacts", "ArtifactsError", "collect"]
