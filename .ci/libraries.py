#!/usr/bin/env python3
"""Whether a program can start in the image, or on what another list stands for: every shared library that it needs, in a version that is new
enough, comes with a package of the list.

Usage: .ci/libraries.py PROGRAM [LIST]     LIST is by default k8s/distroless-cc-debian12.txt

Reads what the program asks the dynamic linker for (`readelf`, of binutils), so that it neither runs the program nor looks at what
happens to be installed here. What those libraries need in turn comes with their own packages.
"""

import pathlib
import re
import subprocess
import sys

LIST = pathlib.Path(__file__).parent.parent / "k8s" / "distroless-cc-debian12.txt"


def read_list(path):
    """The libraries of the base, each with its package, and the newest version that it has of each namespace of symbols."""
    libraries, newest = {}, {}
    for line in path.read_text(encoding="utf-8").splitlines():
        package, *words = line.split("#", 1)[0].split() or [None]
        for word in words:
            if "<=" in word:
                namespace, version = word.split("<=")
                newest[namespace] = parsed(version)
            else:
                libraries[word] = package
    return libraries, newest


def parsed(version):
    return tuple(int(part) for part in version.split("."))


def readelf(flag, program):
    return subprocess.run(
        ["readelf", flag, "--wide", program], check=True, capture_output=True, text=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    ).stdout


def needed(program):
    """Names of the shared libraries, and the newest version asked of each namespace of symbols (`GLIBC_2.34`)."""
    names = re.findall(r"\(NEEDED\)\s+Shared library: \[(.+?)\]", readelf("--dynamic", program))
    wanted = {}
    for namespace, version in re.findall(r"Name: ([A-Z]+)_([0-9.]+)\b", readelf("--version-info", program)):
        wanted[namespace] = max(wanted.get(namespace, ()), parsed(version))
    return names, wanted


def main():
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    program = sys.argv[1]
    path = pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else LIST
    libraries, newest = read_list(path)
    try:
        names, wanted = needed(program)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{program} cannot be read with readelf: {getattr(error, 'stderr', None) or error}", file=sys.stderr)
        return 1
    if not names:
        print(f"{program} needs no shared library.")
        return 0
    errors = [f"{name} is in no package of the list: link it statically, or change what the list stands for" for name in names if name not in libraries]
    for namespace, version in sorted(wanted.items()):
        if version > newest.get(namespace, version):
            have = ".".join(map(str, newest[namespace]))
            errors.append(f"{namespace} {'.'.join(map(str, version))} is newer than the list's {have}: build on a system that has that one")
    for error in errors:
        print(f"{program}: {error} ({path.name})", file=sys.stderr)
    if errors:
        return 1
    print(f"{program} needs {', '.join(f'{name} ({libraries[name]})' for name in names)}: all in {path.name}.")
    return 0


sys.exit(main())
