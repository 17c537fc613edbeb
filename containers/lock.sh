#!/usr/bin/env bash
# Compile the images' locks from setup.cfg's extras, with the versions of requirements.lock, each with its hashes.
# Reads setup.cfg and requirements.lock; writes containers/{data,training,inference}.lock. Needs uv.
#
#   containers/lock.sh                   the images' locks
#   containers/lock.sh requirements      first requirements.lock and requirements.cuda.lock themselves, with the newest
#                                        versions that setup.cfg takes
set -euo pipefail
cd "$(dirname "$0")/.."

# The base images' Python, and the oldest glibc that their Amazon Linux 2023 runs.
python_version=3.12
platform=x86_64-manylinux_2_34

# torch comes with the base image, built for its CUDA and EFA; a wheel from the lock would take its place, and its
# nvidia-* packages would add 4 GB. `dataclasses` is a backport of what Python has had since 3.7; opencv-python has the
# files of opencv-python-headless, and needs a screen's libraries.
excluded() { printf '%s\n' torch torchvision triton dataclasses opencv-python; }

# requirements EXTRA... [-NAME...]: what the extras ask for, and what params/ needs; -NAME leaves a package out.
requirements() {
    python3 - "$@" <<'PYTHON'
import configparser, re, sys

setup = configparser.ConfigParser()
setup.read("setup.cfg")
wanted = [line for extra in sys.argv[1:] if extra[0] != "-" for line in setup["options.extras_require"][extra].split("\n")]
params = [line for line in setup["options"]["install_requires"].split("\n") if re.match("pydantic|pyyaml|boto3", line)]
left_out = {name[1:] for name in sys.argv[1:] if name[0] == "-"}
lines = {line.strip() for line in params + wanted if line.strip()}
print("\n".join(sorted(line for line in lines if re.split(r"[\[=<>!~ ]", line)[0] not in left_out)))
PYTHON
}

compile() {
    local image=$1
    shift
    requirements "$@" | uv pip compile - \
        --quiet --output-file "containers/${image}.lock" \
        --constraints requirements.lock --excludes <(excluded) \
        --python-version "$python_version" --python-platform "$platform" \
        --generate-hashes --only-binary :all: --no-annotate \
        --custom-compile-command containers/lock.sh
}

# requirements.lock is for Linux and macOS, x86-64 and arm64, Python 3.11 to 3.13; markers tell them apart. It is for a CPU:
# torch is the CPU build of PyTorch's own index, which is not on PyPI, where its hash is known, and PyPI's on macOS. For
# every other machine requirements.cuda.lock has PyPI's build for Linux and its libraries; install.sh takes one of the two.
# The extras heic and jxl are for whoever wants them: without them these pictures are counted as unsupported_format.
compile_requirements() {
    uv pip compile setup.cfg --extra={local,data,training,evaluation,serving,report,playground,dev} --no-emit-package dataclasses --no-emit-package opencv-python \
        --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --quiet "$@" >all.lock.new
    awk -v cpu=requirements.lock.new -v cuda=requirements.cuda.lock.new '
        /^[a-z0-9]/ { torch = /^torch==/; gpu = /^(nvidia-|cuda-|triton==)/; other = /== .(win32|emscripten)./ }
        other { next }
        /^torch==/ {
            if ($1 != "torch==2.13.0") { print "the CPU build of " $1 " has another hash" >"/dev/stderr"; exit 1 }
            print $1 "+cpu ; sys_platform == \"linux\" and platform_machine == \"x86_64\" and python_version < \"3.12\" \\" >cpu
            # torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl
            print "    --hash=sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b" >cpu
            print $1 " ; sys_platform == \"darwin\" \\" >cpu
            print $1 " ; sys_platform == \"linux\" \\" >cuda
            next
        }
        torch || gpu { print >cuda }
        !gpu { print >cpu }' all.lock.new
    mv requirements.lock.new requirements.lock
    mv requirements.cuda.lock.new requirements.cuda.lock
    rm all.lock.new
}

if [[ ${1:-} == requirements ]]; then
    shift
    compile_requirements "$@"
fi
compile data data
# The training image encodes too (Ray, pictures), but fetches nothing from the web.
compile training data training evaluation -img2dataset -simplejpeg -torch
compile inference training serving -torch -tensorboard -mlflow-skinny -sagemaker-mlflow
