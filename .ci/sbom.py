#!/usr/bin/env python3
"""Writes what a program of this workspace was made of, as CycloneDX 1.6 (JSON): every crate that is linked or builds, with version, licence
and SHA-256 of its source, as Cargo.lock has them.

    .ci/sbom.py PACKAGE TARGET >sbom.cdx.json

Needs nothing but cargo and Python. Two runs on one commit write the same bytes.
"""

import json
import re
import subprocess
import sys
import uuid
from collections import deque
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def metadata(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    return json.loads(subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True).stdout)


def checksums():
    """The SHA-256 of each crate of a registry. Python reads TOML from 3.11 on; the lock file is written by cargo, in one form."""
    of_crate = r'name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "([0-9a-f]{64})"'
    found = re.findall(of_crate, (HERE / "Cargo.lock").read_text())
    return {(name, version): digest for name, version, digest in found}


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, sums):
    made = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package["license"]:
        # Cargo took a slash for OR before it took SPDX expressions.
        made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    digest = sums.get((package["name"], package["version"]))
    if package["source"] == REGISTRY and digest:
        made["hashes"] = [{"alg": "SHA-256", "content": digest}]
    if package["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return made


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    name, target = sys.argv[1:]
    known = metadata(target)
    packages = {package["id"]: package for package in known["packages"]}
    nodes = {node["id"]: node for node in known["resolve"]["nodes"]}
    roots = [one for one in known["workspace_members"] if packages[one]["name"] == name]
    if len(roots) != 1:
        sys.exit(f"sbom: there is no package {name} in this workspace")

    # What tests alone need is no part of the program.
    needs = {}
    waiting = deque(roots)
    while waiting:
        one = waiting.popleft()
        if one in needs:
            continue
        needs[one] = sorted(
            dependency["pkg"]
            for dependency in nodes[one]["deps"]
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
        )
        waiting.extend(needs[one])

    sums = checksums()
    root = packages[roots[0]]
    everything = sorted((packages[one] for one in needs if one != roots[0]), key=reference)
    program = component(root, sums) | {"type": "application"}
    components = [component(package, sums) for package in everything]
    about = json.dumps([program, components, target], sort_keys=True)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, about).urn,
        "version": 1,
        "metadata": {
            "component": program,
            "properties": [{"name": "cargo:target", "value": target}],
        },
        "components": components,
        "dependencies": [
            {"ref": reference(packages[one]), "dependsOn": sorted({reference(packages[to]) for to in needs[one]})}
            for one in sorted(needs, key=lambda one: reference(packages[one]))
        ],
    }
    json.dump(document, sys.stdout, indent=1)
    print()


main()
