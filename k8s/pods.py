"""Makes the pods that a cluster would make of workloads, so that admission can be asked about them.

Usage: pods.py <LIST >PODS          a pod of each template
       pods.py --worse <LIST >PODS  the same pods, each with one thing that the Pod Security Standard `restricted` forbids

LIST is what `kubectl apply --output json` answers. Pod Security refuses pods, not the workloads that make them: of a Deployment that can never
have a pod it says no more than a warning.
"""

import copy
import json
import sys


def templates(manifest):
    spec = manifest.get("spec", {})
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if isinstance(spec.get("template"), dict):
        yield spec


def pod_of(manifest, spec):
    name = f"{manifest['metadata']['name']}-0"
    pod = copy.deepcopy(spec["template"]["spec"])
    # As a StatefulSet's controller adds them.
    for claim in spec.get("volumeClaimTemplates", []):
        claimed = claim["metadata"]["name"]
        pod.setdefault("volumes", []).append({"name": claimed, "persistentVolumeClaim": {"claimName": f"{claimed}-{name}"}})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**spec["template"]["metadata"], "name": name, "namespace": manifest["metadata"]["namespace"]},
        "spec": pod,
    }


def worse(pod):
    """The pod with one rule broken at a time."""
    breaks = {
        "privileged": lambda spec: spec["containers"][0]["securityContext"].update(privileged=True, allowPrivilegeEscalation=True),
        "root": lambda spec: spec["securityContext"].update(runAsNonRoot=False),
        "no-seccomp": lambda spec: spec["securityContext"].pop("seccompProfile"),
        "capabilities": lambda spec: spec["containers"][0]["securityContext"].pop("capabilities"),
        "host-network": lambda spec: spec.update(hostNetwork=True),
        "host-path": lambda spec: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    }
    for name, apply in breaks.items():
        broken = copy.deepcopy(pod)
        broken["metadata"]["name"] += f"-{name}"
        apply(broken["spec"])
        yield broken


def main():
    answered = json.load(sys.stdin)
    manifests = answered["items"] if answered["kind"] == "List" else [answered]
    pods = [pod_of(manifest, spec) for manifest in manifests for spec in templates(manifest)]
    if not pods:
        raise SystemExit("pods.py: there is no workload")
    if sys.argv[1:] == ["--worse"]:
        pods = [broken for pod in pods for broken in worse(pod)]
    json.dump({"apiVersion": "v1", "kind": "List", "items": pods}, sys.stdout)


main()
