#!/usr/bin/env bash
# Packs a program for a release, as [package.metadata.binstall] in Cargo.toml expects it: with manual pages, completions for shells, the
# list of what it was made of (SBOM), and the SHA-256 of each of these files.
#
#   .ci/archive.sh version                              the version of Cargo.toml
#   .ci/archive.sh pack PROGRAM TARGET FOLDER [LIST]    FOLDER/tandem-VERSION-TARGET.tar.gz, and its SHA-256 beside it
#
# LIST names the shared libraries that a program for Linux may need: .ci/plain-linux.txt, unless what is packed is for a trial alone.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
fail() { printf 'archive: %s\n' "$*" >&2; exit 1; }

version="$(sed -n '/^\[workspace\.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$here/Cargo.toml")"
[[ -n "$version" ]] || fail "Cargo.toml has no version"

case "${1:-}" in
version)
    echo "$version"
    ;;
pack)
    [[ ($# == 4 || $# == 5) && -f "$2" ]] || fail "usage: .ci/archive.sh pack PROGRAM TARGET FOLDER [LIST]"
    program="$2" target="$3" folder="$4" list="${5:-$here/.ci/plain-linux.txt}"
    name="tandem-$version-$target"
    # Both systems have one of them, and their output is the same.
    if command -v sha256sum >/dev/null; then sum=(sha256sum); else sum=(shasum -a 256); fi
    mkdir -p "$folder"
    scratch="$(mktemp -d)"
    trap 'rm -rf "$scratch"' EXIT
    mkdir "$scratch/$name"
    cp "$program" "$scratch/$name/tandem"
    strip "$scratch/$name/tandem"
    cp "$here/LICENSE" "$here/README.md" "$here/CHANGELOG.md" "$scratch/$name/"
    # What is packed is what was built: it starts, and is of this version.
    said="$("$scratch/$name/tandem" --version)"
    [[ "$(head -n 1 <<<"$said")" == "tandem $version" ]] || fail "the program says '$said', not 'tandem $version'"
    commit="$(sed -n 's/^commit //p' <<<"$said")"
    [[ "$commit" != unknown ]] || fail "the program does not know the commit that it was built from"
    "$scratch/$name/tandem" schema check "$here/schema/released" "$here/schema" >/dev/null || fail "the release breaks what the last one promised"
    case "$target" in
    # It wants nothing that a plain system does not have.
    *-linux-gnu) "$here/.ci/libraries.py" "$scratch/$name/tandem" "$list" ;;
    *-linux-musl)
        needs="$("$here/.ci/libraries.py" "$scratch/$name/tandem")" || fail "the program cannot be read"
        [[ "$needs" == *"needs no shared library."* ]] || fail "the program is not static: $needs"
        ;;
    *-apple-*)
        if otool -L "$scratch/$name/tandem" | tail -n +2 | grep -vE '^\s+(/usr/lib/|/System/Library/)'; then
            fail "the program needs the libraries above, which are no part of macOS"
        fi
        ;;
    esac
    "$scratch/$name/tandem" man --to "$scratch/$name/man"
    mkdir "$scratch/$name/completions"
    # Each under the name by which its shell finds it.
    for completion in bash:tandem zsh:_tandem fish:tandem.fish elvish:tandem.elv powershell:_tandem.ps1; do
        "$scratch/$name/tandem" completions "${completion%%:*}" >"$scratch/$name/completions/${completion#*:}"
    done
    "$here/.ci/sbom.py" tandem "$target" >"$scratch/$name/sbom.cdx.json"
    (cd "$scratch/$name" && find . -type f ! -name SHA256SUMS | LC_ALL=C sort | xargs "${sum[@]}" >"$scratch/SHA256SUMS")
    mv "$scratch/SHA256SUMS" "$scratch/$name/SHA256SUMS"
    # On macOS tar adds a file `._NAME` for each file with attributes of that system, unless it is told not to.
    COPYFILE_DISABLE=1 tar -C "$scratch" -czf "$folder/$name.tar.gz" "$name"
    # `cargo binstall` looks for this name at the manifest's repository, and for the program in this folder of it. A release is where its tag is.
    (cd "$here" && cargo metadata --locked --no-deps --format-version 1) | python3 -c '
import json, os, sys
version, target, archive = sys.argv[1:]
[package] = [one for one in json.load(sys.stdin)["packages"] if one["name"] == "tandem"]
told = package["metadata"]["binstall"]
repository = package["repository"]
if os.environ.get("GITHUB_REF_TYPE") == "tag":
    here = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}".format(**os.environ)
    if repository != here:
        sys.exit(f"archive: Cargo.toml names the repository {repository}, and the release is at {here}: `cargo binstall` would not find it")
elif not repository:
    print("archive: Cargo.toml has no repository, so `cargo binstall` finds this only where --pkg-url says", file=sys.stderr)
repository = repository or "https://repository.invalid"
values = {"name": "tandem", "bin": "tandem", "version": version, "target": target, "binary-ext": "", "archive-suffix": ".tar.gz", "repo": repository}
def filled(template):
    for name, value in values.items():
        template = template.replace("{ %s }" % name, value)
    return template
wanted = {"pkg-url": f"{repository}/releases/download/v{version}/{archive}.tar.gz", "bin-dir": f"{archive}/tandem", "pkg-fmt": "tgz"}
for key, value in wanted.items():
    if filled(told[key]) != value:
        sys.exit(f"archive: [package.metadata.binstall] has {key} {filled(told[key])}, and the archive is {value}")
' "$version" "$target" "$name"
    (cd "$folder" && "${sum[@]}" "$name.tar.gz" >"$name.tar.gz.sha256")
    echo "$folder/$name.tar.gz"
    ;;
*)
    fail "usage: .ci/archive.sh version | pack PROGRAM TARGET FOLDER [LIST]"
    ;;
esac
