"""Refuses a dependency whose licence does not let Tandem be shipped under Apache-2.0.

Reads `cargo metadata`, so the whole graph of every platform is looked at. An expression is taken when it can be satisfied
with the licences below; AGPL, GPL, BUSL, Elastic and whatever isn't known here are refused.
"""

import json
import re
import subprocess
import sys

ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-1-Clause", "BSD-2-Clause", "BSD-3-Clause",
    "BSL-1.0",  # Boost, not the Business Source License, which is BUSL-1.1
    "CC0-1.0", "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib",
    # Copyleft by the file, and none of those files is changed here.
    "MPL-2.0", "MPL-2.0+",
}  # fmt: skip


def satisfied(expression: str) -> bool:
    """Whether the SPDX expression (with the old `/` for OR) can be met with allowed licences alone."""
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def peek() -> str:
        return words[position] if position < len(words) else ""

    def take() -> str:
        nonlocal position
        position += 1
        return words[position - 1]

    def one() -> bool:
        if peek() == "(":
            take()
            value = either()
            if peek() != ")":
                raise ValueError("a bracket is not closed")
            take()
            return value
        name = take()
        if peek() == "WITH":
            name = f"{name} {take()} {take()}"
        return name in ALLOWED

    def both() -> bool:
        value = one()
        while peek() == "AND":
            take()
            value = one() and value
        return value

    def either() -> bool:
        value = both()
        while peek() == "OR":
            take()
            value = both() or value
        return value

    value = either()
    if peek():
        raise ValueError(f"unexpected {peek()}")
    return value


def main() -> int:
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    packages = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    refused = []
    for package in packages:
        licence = package["license"] or ""
        try:
            good = satisfied(licence)
        except (ValueError, IndexError):
            good = False
        if not good:
            refused.append(f"{package['name']} {package['version']}: {licence or 'no licence named'}")
    for line in sorted(refused):
        print(line, file=sys.stderr)
    if refused:
        print(f"{len(refused)} of {len(packages)} packages have a licence that is not allowed.", file=sys.stderr)
        return 1
    print(f"{len(packages)} packages, all under allowed licences.")
    return 0


sys.exit(main())
