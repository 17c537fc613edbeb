"""The settings of each program that runs inside a job: what its command line accepts.

Reads nothing, writes nothing. `params.arguments` turns each model into flags, hyperparameters or environment
variables, so a field added here is at once a key of the parameter sets, a flag of `python -m steps PROGRAM`, and
an argument in the pipeline definition.
"""

from params.programs.download import DownloadArguments, DownloadSettings
from params.programs.encode import EncodeArguments, EncodeSettings, RecaptionArguments, RecaptionSettings
from params.programs.evaluate import DRAWING, EvaluateArguments, ScoreArguments
from params.programs.export import ExportArguments, MemoryArguments
from params.programs.probe import ProbeArguments
from params.programs.serve import InspectArguments, ServeArguments
from params.programs.train import MONEY, ThroughputArguments, TrainArguments
