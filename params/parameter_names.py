"""Names of the pipeline parameters: what `--set` and the console change, written once for every room.

Reads nothing, writes nothing. `sd-pipeline parameters` prints them with their defaults.
"""

from typing import Final

# The data.
DATASET_NAME: Final = "DatasetName"
URL_TABLE: Final = "UrlTable"
MAX_ROWS: Final = "MaxRows"
MIN_YIELD: Final = "MinYield"
TOP_UP: Final = "TopUp"
PRETRAINED_MODEL: Final = "PretrainedModel"
EVALUATOR: Final = "Evaluator"
CAPTIONER: Final = "Captioner"

# The training. Later phases have TRAINING_SAMPLES and OTHER_STEPS_USD of their own: their suffix follows.
TRAINING_SAMPLES: Final = "TrainingSamples"
GLOBAL_BATCH_SIZE: Final = "GlobalBatchSize"
TRAINING_RUN: Final = "TrainingRun"
BUDGET_USD: Final = "BudgetUsd"
OTHER_STEPS_USD: Final = "OtherStepsUsd"
TUNE_SAMPLES: Final = "TuneSamples"

# The evaluation and its gate.
EVALUATION_SAMPLES: Final = "EvaluationSamples"
EVALUATION_CAPTIONS: Final = "EvaluationCaptions"
APPROVED_MODEL: Final = "ApprovedModel"
MAX_FID: Final = "MaxFid"
MIN_CLIP_SCORE: Final = "MinClipScore"
MAX_FID_ABOVE_PRETRAINED: Final = "MaxFidAbovePretrained"
MAX_CLIP_SCORE_BELOW_PRETRAINED: Final = "MaxClipScoreBelowPretrained"
MAX_FID_ABOVE_APPROVED: Final = "MaxFidAboveApproved"
MAX_CLIP_SCORE_BELOW_APPROVED: Final = "MaxClipScoreBelowApproved"
MAX_COPIES: Final = "MaxCopies"
MIN_PROMPT_FOLLOWING: Final = "MinPromptFollowing"
MARGINS: Final = (
    MAX_FID_ABOVE_PRETRAINED,
    MAX_CLIP_SCORE_BELOW_PRETRAINED,
    MAX_FID_ABOVE_APPROVED,
    MAX_CLIP_SCORE_BELOW_APPROVED,
)

# The registry and the endpoint.
APPROVAL_STATUS: Final = "ApprovalStatus"
MODEL_PACKAGE_GROUP: Final = "ModelPackageGroup"
ENDPOINT_NAME: Final = "EndpointName"

# The account.
DATA_IMAGE: Final = "DataImage"
TRAINING_IMAGE: Final = "TrainingImage"
INFERENCE_IMAGE: Final = "InferenceImage"
IMAGES: Final = (DATA_IMAGE, TRAINING_IMAGE, INFERENCE_IMAGE)
BUCKET: Final = "Bucket"
FSX_ID: Final = "FsxId"
FSX_PATH: Final = "FsxPath"

# Hosts that are set together: the names of their parameters begin with this.
DOWNLOAD_HOSTS: Final = "Download"
RECAPTION_HOSTS: Final = "Recaption"
TUNE_HOSTS: Final = "Tune"
EVALUATE_HOSTS: Final = "Evaluate"
ENDPOINT_HOSTS: Final = "Endpoint"
ENCODERS_HOSTS: Final = "Encoders"


def instance_type_of(hosts: str) -> str:
    """Return the name of the parameter for the instance type of some hosts."""
    return f"{hosts}InstanceType"


def instance_count_of(hosts: str) -> str:
    """Return the name of the parameter for the number of some hosts."""
    return f"{hosts}InstanceCount"
