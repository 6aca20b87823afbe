"""Holds rendered manifests against the Kubernetes API's schemas, and against what Tandem promises about them.

Usage: check.py OVERLAY "VERSION…" RENDERED [SECRET.example.yaml…]
"""

import sys

import kubernetes_validate
import yaml

SERVICES = {"accounts": 8080, "orders": 8085, "api-gateway": 9090}
PATHS = {"/graphql": "api-gateway", "/accounts/customer/": "accounts", "/orders/": "orders"}
KAFKA_KEYS = {
    "bootstrap.servers", "security.protocol", "sasl.mechanism", "ssl.endpoint.identification.algorithm",
    "request.timeout.ms", "retry.backoff.ms",
}  # fmt: skip


def schema_errors(manifests, versions):
    for version in versions:
        for manifest in manifests:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = ".".join(str(part) for part in error.path)
                yield f"{name_of(manifest)} at {where or 'its top'}, Kubernetes {version}: {error.message}"
            except kubernetes_validate.SchemaNotFoundError as error:
                yield f"{name_of(manifest)}, Kubernetes {version}: {error}"


def name_of(manifest):
    return f"{manifest.get('kind')} {manifest.get('metadata', {}).get('name')}"


def workload_errors(manifest):
    pod = manifest["spec"]["template"]["spec"]
    name = name_of(manifest)
    if not pod.get("securityContext", {}).get("runAsNonRoot"):
        yield f"{name}: may run as root"
    for container in pod["containers"]:
        security = container.get("securityContext", {})
        if security.get("allowPrivilegeEscalation") is not False or security.get("capabilities", {}).get("drop") != ["ALL"]:
            yield f"{name}: keeps privileges"
        if "memory" not in container.get("resources", {}).get("limits", {}):
            yield f"{name}: has no limit of memory"
        if manifest["metadata"]["name"] in SERVICES:
            if not security.get("readOnlyRootFilesystem"):
                yield f"{name}: can write to its image"
            for probe, path in (("startupProbe", "liveness"), ("livenessProbe", "liveness"), ("readinessProbe", "readiness")):
                if container.get(probe, {}).get("httpGet", {}).get("path") != f"/actuator/health/{path}":
                    yield f"{name}: {probe} does not ask /actuator/health/{path}"


def promise_errors(overlay, manifests):
    """What users rely on: names, keys, paths, and that every name that is used is there."""
    named = {(m["kind"], m["metadata"]["name"]): m for m in manifests}
    for service, port in SERVICES.items():
        for kind in ("Deployment", "Service", "ServiceAccount", "PodDisruptionBudget"):
            if (kind, service) not in named:
                yield f"{kind} {service} is missing"
        ports = [p["port"] for p in named.get(("Service", service), {}).get("spec", {}).get("ports", [])]
        if ports != [port]:
            yield f"Service {service} has ports {ports}, not {port}"
        if overlay == "managed" and ("HorizontalPodAutoscaler", service) not in named:
            yield f"HorizontalPodAutoscaler {service} is missing"
    for (kind, _), manifest in named.items():
        if kind in ("Deployment", "StatefulSet"):
            yield from workload_errors(manifest)
            yield from reference_errors(manifest, named)
    ingress = named.get(("Ingress", "tandem"))
    paths = {}
    for rule in ingress["spec"]["rules"] if ingress else []:
        for path in rule["http"]["paths"]:
            paths[path["path"]] = path["backend"]["service"]["name"]
    if paths != PATHS:
        yield f"the Ingress has paths {paths}, not {PATHS}"
    for wanted in ("nothing-by-default", "api-gateway", "subgraphs"):
        if ("NetworkPolicy", wanted) not in named:
            yield f"NetworkPolicy {wanted} is missing"
    if overlay == "managed":
        keys = set(named.get(("ConfigMap", "confluent-cloud-kafka"), {}).get("data", {}))
        if keys != KAFKA_KEYS:
            yield f"ConfigMap confluent-cloud-kafka has the keys {sorted(keys)}"


def reference_errors(manifest, named):
    for container in manifest["spec"]["template"]["spec"]["containers"]:
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            for kind, reference in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                if reference in source:
                    target = named.get((kind, source[reference]["name"]), {})
                    keys = {**target.get("data", {}), **target.get("stringData", {})}
                    if source[reference]["key"] not in keys:
                        yield f"{name_of(manifest)}: {kind} {source[reference]['name']} has no key {source[reference]['key']}"


def example_errors(examples):
    for example in examples:
        if any(example.get("stringData", {}).values()) or example.get("data"):
            yield f"{name_of(example)}: an example must not hold a value"


def main():
    overlay, versions, rendered, *example_files = sys.argv[1:]
    manifests = [m for m in yaml.safe_load_all(open(rendered, encoding="utf-8")) if m]
    examples = [m for file in example_files for m in yaml.safe_load_all(open(file, encoding="utf-8"))]
    errors = [
        *schema_errors(manifests + examples, versions.split()),
        *promise_errors(overlay, manifests + examples),
        *example_errors(examples),
    ]
    for error in errors:
        print(f"{overlay}: {error}", file=sys.stderr)
    if errors:
        return 1
    print(f"{overlay}: {len(manifests)} manifests and {len(examples)} examples fit Kubernetes {', '.join(versions.split())}.")
    return 0


sys.exit(main())
