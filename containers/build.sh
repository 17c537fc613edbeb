#!/usr/bin/env bash
# Build the images with docker or podman; with --push, log in to ECR and push them by content tag.
# Reads containers/, params/ and steps/ of this checkout; writes images. Prints NAME=IMAGE lines, which `--set` takes.
#
#   containers/build.sh                       all three, for this machine
#   containers/build.sh --push                to the ECR of the credentials' account and region
#   containers/build.sh --base IMAGE data     one of them, on another base
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: containers/build.sh [options] [data] [training] [inference]
  --push            log in to ECR and push; a tag that is there already is not built again
  --registry HOST   ACCOUNT.dkr.ecr.REGION.amazonaws.com; default: the credentials' account and region
  --project NAME    beginning of the repositories' names (default: sd-pipeline)
  --engine NAME     docker or podman (default: the first that is installed)
  --base IMAGE      base image, by tag or digest (default: the Dockerfile's)
  --run-as USER     user of the image's process (default: root, as SageMaker asks)
  --tags            print the content tags and build nothing
TEXT
}

fail() {
    printf 'containers/build.sh: %s\n' "$1" >&2
    exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
push=false tags_only=false registry='' project=sd-pipeline engine='' base='' run_as=root images=()
while (($#)); do
    case $1 in
        --push) push=true ;;
        --tags) tags_only=true ;;
        --registry | --project | --engine | --base | --run-as)
            (($# > 1)) || fail "$1 takes a value"
            case $1 in
                --registry) registry=$2 ;;
                --project) project=$2 ;;
                --engine) engine=$2 ;;
                --base) base=$2 ;;
                --run-as) run_as=$2 ;;
            esac
            shift
            ;;
        --help | -h) usage && exit 0 ;;
        data | training | inference) images+=("$1") ;;
        *) usage >&2 && fail "unknown argument $1" ;;
    esac
    shift
done
((${#images[@]})) || images=(data training inference)

find_engine() {
    local name
    for name in docker podman; do
        if command -v "$name" >/dev/null; then
            echo "$name"
            return
        fi
    done
    fail 'neither docker nor podman is installed'
}

# The whole build context of an image, and nothing that is not in it: what the tag is made of.
make_context() {
    local image=$1 context=$2
    cp "$root/containers/$image.Dockerfile" "$root/containers/$image.lock" "$context/"
    # Tables beside the code are read by it; parameter sets, the files of params/ itself, are not.
    (cd "$root" && find params steps -type f -not -path '*/__pycache__/*' \
        -not \( -path 'params/*.yaml' -not -path 'params/*/*' \) -print0 | tar -cf - --null -T -) |
        tar -xf - -C "$context"
    chmod -R u=rwX,go=rX "$context"
}

sha256() {
    # macOS has the one, Linux the other.
    if command -v sha256sum >/dev/null; then echo sha256sum; else echo 'shasum -a 256'; fi
}

# Sixteen digits of a digest over names and contents of the context, the base and the user: the same bytes, the same tag.
content_tag() {
    local context=$1
    local -a digest
    read -r -a digest <<<"$(sha256)"
    {
        printf '%s\n' "$base" "$run_as"
        (cd "$context" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 "${digest[@]}")
    } | "${digest[@]}" | cut -c1-16
}

# ask_aws REGION CODE: run two lines of boto3, which this project installs, instead of asking for the AWS CLI as well.
ask_aws() {
    local region=$1 code=$2
    shift 2
    AWS_DEFAULT_REGION=${region:-${AWS_DEFAULT_REGION:-us-east-1}} "${PYTHON:-python3}" -c "$code" "$@"
}

default_registry() {
    ask_aws '' 'import boto3
session = boto3.Session()
account = session.client("sts").get_caller_identity()["Account"]
print(f"{account}.dkr.ecr.{session.region_name}.amazonaws.com")'
}

log_in() {
    local host=$1 region
    region=$(cut -d. -f4 <<<"$host")
    ask_aws "$region" 'import base64, boto3
token = boto3.client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
print(base64.b64decode(token).decode().split(":", 1)[1], end="")' |
        "$engine" login --username AWS --password-stdin "$host" >&2
}

# The Deep Learning Containers' registry wants a login too; any account's is good for it.
log_in_to_base() {
    local host
    host=${base:-$(sed -n 's/^ARG BASE_IMAGE=//p' "$root/containers/$1.Dockerfile")}
    host=${host%%/*}
    ! is_ecr "$host" || log_in "$host"
}

is_ecr() {
    [[ $1 =~ ^[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$ ]]
}

is_pushed() {
    local repository=$1 tag=$2
    ask_aws "$(cut -d. -f4 <<<"$registry")" 'import sys, boto3
client = boto3.client("ecr")
try:
    client.describe_images(repositoryName=sys.argv[1], imageIds=[{"imageTag": sys.argv[2]}])
except client.exceptions.ImageNotFoundException:
    sys.exit(1)' "$repository" "$tag"
}

build() {
    local image=$1 context=$2 name=$3
    local -a arguments=(--file "$context/$image.Dockerfile" --tag "$name" --build-arg "RUN_AS=$run_as")
    [[ -z $base ]] || arguments+=(--build-arg "BASE_IMAGE=$base")
    [[ $engine != docker ]] || arguments+=(--platform linux/amd64)
    # What cannot be known here, such as chroot isolation on a host without user namespaces, comes from outside.
    read -r -a extra <<<"${BUILD_ARGUMENTS:-}"
    log_in_to_base "$image"
    DOCKER_BUILDKIT=1 "$engine" build "${arguments[@]}" ${extra[@]+"${extra[@]}"} "$context" >&2
}

if ! $tags_only; then
    engine=${engine:-$(find_engine)}
    command -v "$engine" >/dev/null || fail "$engine is not installed"
fi
if $push; then
    registry=${registry:-$(default_registry)}
    is_ecr "$registry" || fail "$registry is no ECR registry"
    log_in "$registry"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for image in "${images[@]}"; do
    context=$work/$image
    mkdir "$context"
    make_context "$image" "$context"
    tag=$(content_tag "$context")
    name=${registry:+$registry/}$project-$image:$tag
    if ! $tags_only && ! { $push && is_pushed "$project-$image" "$tag"; }; then
        build "$image" "$context" "$name"
        ! $push || "$engine" push "$name" >&2
    fi
    printf '%s=%s\n' "$(tr '[:lower:]' '[:upper:]' <<<"${image:0:1}")${image:1}Image" "$name"
done
