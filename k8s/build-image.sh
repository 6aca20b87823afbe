#!/usr/bin/env bash
# Builds the image: k8s/build-image.sh [NAME:TAG], by default tandem:VERSION. Needs Docker with BuildKit, or the like.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version="$(sed -n '/^\[workspace\.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)"
image="${1:-tandem:$version}"
docker="${DOCKER:-docker}"
command -v "$docker" >/dev/null || { echo "No $docker here: install Docker, or set DOCKER to what takes its commands." >&2; exit 1; }
# Without git it is what an archive of the sources says of itself, or unknown.
commit="$(git rev-parse HEAD 2>/dev/null || true)"
DOCKER_BUILDKIT=1 "$docker" build --file k8s/Dockerfile --tag "$image" --build-arg "COMMIT=$commit" \
    --label "org.opencontainers.image.version=$version" --label "org.opencontainers.image.revision=${commit:-unknown}" .
echo "$image"
