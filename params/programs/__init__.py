"""The settings of each program that runs inside a job: what its command line accepts.

Reads nothing, writes nothing. `params.arguments` turns each model into flags, hyperparameters or environment
variables, so a field added here is at once a key of the parameter sets, a flag of `python -m steps PROGRAM`, and
an argument in the pipeline definition.
"""

from params.programs.download import DownloadArguments, DownloadSettings
from params.programs.encode import EncodeArguments, EncodeSettings
from params.programs.evaluate import DRAWING, EvaluateArguments, ScoreArguments
from params.programs.export import ExportArguments
from params.programs.memory import MemoryArguments
from params.programs.probe import ProbeArguments
from params.programs.recaption import RecaptionArguments, RecaptionSettings
from params.programs.serve import ServeArguments
from params.programs.train import MONEY, ThroughputArguments, TrainArguments
