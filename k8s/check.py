"""Holds rendered manifests against the Kubernetes API's schemas, and against what Tandem promises about them.

Usage: check.py OVERLAY "VERSION…" FOLDER:FOLDER… RENDERED [EXAMPLE.yaml…]

The folders have CustomResourceDefinitions (of Gateway API, of Prometheus' operator): their kinds are no part of Kubernetes itself. The examples are what
is applied by hand: Secrets, rules for alerts.
"""

import ipaddress
import pathlib
import re
import sys

import jsonschema
import kubernetes_validate
import yaml

SERVICES = {"accounts": 8080, "orders": 8085, "api-gateway": 9090}
PATHS = {"/graphql": "api-gateway", "/accounts/customer/": "accounts", "/orders/": "orders"}
# What the component through-gateway makes of them, of an Ingress and of an HTTPRoute.
THROUGH_GATEWAY = {"managed-through-gateway", "managed-gateway-api-through-gateway"}
MANAGED = {"managed", "managed-gateway-api", "documented", *THROUGH_GATEWAY}
KAFKA_KEYS = {
    "bootstrap.servers", "security.protocol", "sasl.mechanism", "ssl.endpoint.identification.algorithm",
    "request.timeout.ms", "retry.backoff.ms",
}  # fmt: skip
LOGIN = {
    "TANDEM_KAFKA_SASL_JAAS_CONFIG": "sasl.jaas.config",
    "TANDEM_KAFKA_SASL_USERNAME": "sasl.username",
    "TANDEM_KAFKA_SASL_PASSWORD": "sasl.password",
}


def custom_schemas(folder):
    """The schema of every kind and version that a folder defines, strict: a field that it does not know is an error."""
    schemas = {}
    for file in pathlib.Path(folder).glob("*.yaml"):
        for definition in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if not definition or definition.get("kind") != "CustomResourceDefinition":
                continue
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = version["schema"]["openAPIV3Schema"]
                close(schema)
                # Of these the API server knows the fields by itself.
                schema["properties"]["metadata"] = {"type": "object"}
                schemas[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    if not schemas:
        raise SystemExit(f"{folder} holds no CustomResourceDefinition")
    return schemas


def close(schema):
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
        for value in schema.values():
            close(value)
    elif isinstance(schema, list):
        for value in schema:
            close(value)


def schema_errors(manifests, versions, custom):
    kinds = [((m["apiVersion"], m["kind"]), m) for m in manifests]
    for kind, manifest in kinds:
        if kind in custom:
            for error in jsonschema.Draft7Validator(custom[kind]).iter_errors(manifest):
                where = ".".join(str(part) for part in error.path)
                yield f"{name_of(manifest)} at {where or 'its top'}: {error.message}"
    for version in versions:
        for manifest in [manifest for kind, manifest in kinds if kind not in custom]:
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
    if manifest["metadata"]["name"] in SERVICES:
        constraints = pod.get("topologySpreadConstraints", [])
        spread = {constraint["topologyKey"] for constraint in constraints}
        if spread != {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}:
            yield f"{name}: is spread over {sorted(spread)}"
        if any(constraint.get("matchLabelKeys") != ["pod-template-hash"] for constraint in constraints):
            yield f"{name}: pods that an upgrade takes away count when the new ones are spread"
    for container in pod["containers"]:
        security = container.get("securityContext", {})
        if security.get("allowPrivilegeEscalation") is not False or security.get("capabilities", {}).get("drop") != ["ALL"]:
            yield f"{name}: keeps privileges"
        if "memory" not in container.get("resources", {}).get("limits", {}):
            yield f"{name}: has no limit of memory"
        if manifest["metadata"]["name"] in SERVICES:
            if not security.get("readOnlyRootFilesystem"):
                yield f"{name}: can write to its image"
            if {"name": "TANDEM_LOG_FORMAT", "value": "json"} not in container.get("env", []):
                yield f"{name}: does not log JSON"
            variables = {variable["name"] for variable in container.get("env", [])}
            asks = {"TANDEM_AUTH_JWKS", "TANDEM_AUTH_ISSUER", "TANDEM_AUTH_AUDIENCE"} <= variables
            if asks == ("TANDEM_INSECURE_NO_AUTH" in variables):
                yield f"{name}: neither asks for tokens nor says that it does not, so it would not start"
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
        wanted, kind = (80, "LoadBalancer") if overlay == "documented" else (port, "ClusterIP")
        if ports != [wanted]:
            yield f"Service {service} has ports {ports}, not {wanted}"
        if named.get(("Service", service), {}).get("spec", {}).get("type", "ClusterIP") != kind:
            yield f"Service {service} is no {kind}"
        if overlay in MANAGED and ("HorizontalPodAutoscaler", service) not in named:
            yield f"HorizontalPodAutoscaler {service} is missing"
    for (kind, _), manifest in named.items():
        if kind in ("Deployment", "StatefulSet"):
            yield from workload_errors(manifest)
            yield from reference_errors(manifest, named)
    yield from entrance_errors(overlay, named)
    yield from monitor_errors(overlay, named)
    yield from login_errors(overlay, named)
    yield from resolver_errors(named)
    for wanted in ("nothing-by-default", "api-gateway", "subgraphs"):
        if ("NetworkPolicy", wanted) not in named:
            yield f"NetworkPolicy {wanted} is missing"
    if overlay in MANAGED:
        for service in SERVICES:
            if "TANDEM_INSECURE_NO_AUTH" in str(named.get(("Deployment", service))):
                yield f"Deployment {service} lets everybody do everything"
        keys = set(named.get(("ConfigMap", "confluent-cloud-kafka"), {}).get("data", {}))
        if keys != KAFKA_KEYS:
            yield f"ConfigMap confluent-cloud-kafka has the keys {sorted(keys)}"


def entrance_errors(overlay, named):
    """How requests come in: the documented paths and no other, each to its service's port, and TLS only where it is in force."""
    ingress = named.get(("Ingress", "tandem"))
    route = named.get(("HTTPRoute", "tandem"))
    paths = {}
    wanted = dict.fromkeys(PATHS, "api-gateway") if overlay in THROUGH_GATEWAY else PATHS
    if overlay == "documented":
        if ingress or route:
            yield "the LoadBalancers have an Ingress or a route beside them"
        return
    if overlay.startswith("managed-gateway-api"):
        if ingress or not route:
            yield "there is an Ingress, or no HTTPRoute"
            return
        for rule in route["spec"]["rules"]:
            for match, backend in ((m, b) for m in rule["matches"] for b in rule["backendRefs"]):
                paths[match["path"]["value"]] = backend["name"]
                if backend["port"] != SERVICES[backend["name"]]:
                    yield f"the HTTPRoute sends to port {backend['port']} of {backend['name']}"
        yield from gateway_errors(named)
    else:
        for rule in ingress["spec"]["rules"] if ingress else []:
            for path in rule["http"]["paths"]:
                paths[path["path"]] = path["backend"]["service"]["name"]
        yield from tls_errors(ingress)
        if overlay in MANAGED and not (ingress or {}).get("spec", {}).get("tls"):
            yield "the Ingress has no TLS"
    if paths != wanted:
        yield f"requests come in at {paths}, not at {wanted}"
    yield from straight_errors(overlay, named)


def straight_errors(overlay, named):
    """The gateway reaches the services; what takes requests from outside does only where it sends some there."""
    rules = named.get(("NetworkPolicy", "subgraphs"), {}).get("spec", {}).get("ingress", [])
    callers = [caller for rule in rules for caller in rule["from"]]
    if {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "api-gateway"}}} not in callers:
        yield "NetworkPolicy subgraphs does not let the gateway in"
    lets_in = any("matchExpressions" in caller.get("namespaceSelector", {}) for caller in callers)
    if lets_in == (overlay in THROUGH_GATEWAY):
        yield f"NetworkPolicy subgraphs {'lets' if lets_in else 'does not let'} in what takes requests from outside"


def login_errors(overlay, named):
    """Each service has a login to Kafka of its own, or both have the one of the system that this replaces."""
    for service in ("accounts", "orders") if overlay in MANAGED else ():
        wanted = "confluent-cloud-kafka" if overlay == "documented" else f"confluent-cloud-kafka-{service}"
        [container] = named["Deployment", service]["spec"]["template"]["spec"]["containers"]
        variables = {variable["name"]: variable.get("valueFrom", {}).get("secretKeyRef") for variable in container["env"]}
        for name, key in LOGIN.items():
            if variables.get(name) != {"name": wanted, "key": key, "optional": True}:
                yield f"Deployment {service} takes {name} from {variables.get(name)}, not from {key} of {wanted}"


def resolver_errors(named):
    """Names are resolved by pods of kube-system, and by what answers on an address of the node or, in their place, on the cluster's own."""
    [rule] = named.get(("NetworkPolicy", "names-are-resolved"), {}).get("spec", {}).get("egress", [{}])
    blocks = [ipaddress.ip_network(to["ipBlock"]["cidr"]) for to in rule.get("to", []) if "ipBlock" in to]
    for address in ("169.254.20.10", "169.254.169.254", "10.96.0.10", "172.20.0.10"):
        if not any(ipaddress.ip_address(address) in block for block in blocks):
            yield f"NetworkPolicy names-are-resolved lets no one ask the resolver at {address}"
    if {(port["protocol"], port["port"]) for port in rule.get("ports", [])} != {("UDP", 53), ("TCP", 53)}:
        yield "NetworkPolicy names-are-resolved lets out to other ports than those of DNS"


def tls_errors(ingress):
    """A certificate is in force only for a rule of its host."""
    spec = (ingress or {}).get("spec", {})
    hosts = {rule.get("host") for rule in spec.get("rules", [])}
    secured = {host for entry in spec.get("tls", []) for host in entry.get("hosts", [])}
    if secured and hosts != secured:
        yield f"the Ingress has TLS for {sorted(secured)} and rules for {sorted(map(str, hosts))}"


def gateway_errors(named):
    gateway = named.get(("Gateway", "tandem"), {}).get("spec", {})
    listeners = {listener["name"]: listener for listener in gateway.get("listeners", [])}
    for (kind, name), manifest in named.items():
        if kind != "HTTPRoute":
            continue
        for parent in manifest["spec"]["parentRefs"]:
            listener = listeners.get(parent.get("sectionName"))
            if not listener or [listener.get("hostname")] != manifest["spec"].get("hostnames"):
                yield f"HTTPRoute {name} has no listener of its host"
            elif name == "tandem" and listener["protocol"] != "HTTPS":
                yield f"HTTPRoute {name} answers in the clear"


def monitor_errors(overlay, named):
    """That the PodMonitor finds every service, once, under the job that the alerts go by."""
    monitor = named.get(("PodMonitor", "tandem"))
    if overlay != "managed-monitored":
        if monitor:
            yield "there is a PodMonitor"
        return
    if not monitor:
        yield "there is no PodMonitor"
        return
    [selected] = monitor["spec"]["selector"]["matchExpressions"]
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    jobs = set()
    for service in SERVICES:
        template = named["Deployment", service]["spec"]["template"]
        if selected["operator"] != "In" or template["metadata"]["labels"].get(selected["key"]) not in selected["values"]:
            yield f"the PodMonitor does not select {service}"
        if endpoint["port"] not in [port["name"] for container in template["spec"]["containers"] for port in container["ports"]]:
            yield f"{service} has no port {endpoint['port']}, which the PodMonitor scrapes"
        if any(name.startswith("prometheus.io/") for name in template["metadata"].get("annotations", {})):
            yield f"{service} would be scraped twice: its pods have the annotations too"
        found = {f"__meta_kubernetes_pod_label_{re.sub('[^a-zA-Z0-9_]', '_', name)}": value for name, value in template["metadata"]["labels"].items()}
        jobs.add(relabelled(found, endpoint["relabelings"])["job"])
    rules = named.get(("PrometheusRule", "tandem"))
    [wanted] = [rule["expr"] for rule in rules["spec"]["groups"][0]["rules"] if rule["alert"] == "TandemDown"] if rules else [""]
    if jobs != set(re.findall(r'absent\(up{job="(\w+)"}\)', wanted)):
        yield f"the PodMonitor makes the jobs {sorted(jobs)}, and the alert TandemDown goes by {wanted}"


def relabelled(labels, rules):
    """What Prometheus makes of labels by rules that replace."""
    labels = dict(labels)
    for rule in rules:
        value = ";".join(labels.get(name, "") for name in rule.get("sourceLabels", []))
        if re.fullmatch(rule.get("regex", "(.*)"), value):
            labels[rule["targetLabel"]] = rule.get("replacement", value)
    return labels


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
    overlay, versions, folders, rendered, *example_files = sys.argv[1:]
    manifests = [m for m in yaml.safe_load_all(open(rendered, encoding="utf-8")) if m]
    examples = [m for file in example_files for m in yaml.safe_load_all(open(file, encoding="utf-8"))]
    custom = {kind: schema for folder in folders.split(":") for kind, schema in custom_schemas(folder).items()}
    errors = [
        *schema_errors(manifests + examples, versions.split(), custom),
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
