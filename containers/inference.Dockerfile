# The endpoint: torch, diffusers and FastAPI. AWS's PyTorch inference images end at 2.6: its base is the training one.
#
# Built by containers/build.sh from a context of the code of params/ and steps/ and this image's lock, nothing else:
# a parameter set that changes makes no new image.
# The base is an AWS Deep Learning Container (Python 3.12, torch 2.13, in /opt/venv); --build-arg BASE_IMAGE takes
# another, by tag or by digest.
ARG BASE_IMAGE=763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.13-cu133-amzn2023-sagemaker
FROM ${BASE_IMAGE}

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/opt/program \
    HF_HUB_OFFLINE=1

# torch is the base's own: no lock names it, so --no-deps. The lock is mounted for this command, not copied.
RUN --mount=type=bind,source=inference.lock,target=/tmp/inference.lock \
    python -m pip install --no-cache-dir --no-deps --require-hashes --requirement /tmp/inference.lock

WORKDIR /opt/program
COPY params/ params/
COPY steps/ steps/
# The torch that the lock's packages were resolved with, or nothing.
ARG TORCH_VERSION=2.13.0
RUN python -m steps --help \
    && python -c "import torch; assert torch.__version__.split('+')[0] == '${TORCH_VERSION}', torch.__version__"

# SageMaker mounts /opt/ml for root and documents that a container must be able to run as root
# (https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html), so the images that are pushed
# do. Nothing in them needs it: elsewhere build with RUN_AS=1000, which writes to /opt/ml and /tmp alone.
ARG RUN_AS=root
RUN mkdir -p /opt/ml && chown "${RUN_AS}" /opt/ml

# The endpoint starts no shell, so whoever gets it to run something shall find none. As a list: there is no shell left
# for a line. It must be the last RUN.
RUN ["python", "-c", "import itertools, pathlib; \
[path.unlink() for path in itertools.starmap(pathlib.Path, itertools.product( \
('/bin', '/usr/bin', '/usr/local/bin', '/sbin', '/usr/sbin'), \
('sh', 'ash', 'bash', 'busybox', 'csh', 'dash', 'fish', 'ksh', 'mksh', 'rbash', 'tcsh', 'zsh'))) \
if path.is_symlink() or path.is_file()]"]

USER ${RUN_AS}

# SageMaker appends `train` or `serve`; a processing job names its own program: one command line everywhere.
EXPOSE 8080
ENTRYPOINT ["python", "-m", "steps"]
