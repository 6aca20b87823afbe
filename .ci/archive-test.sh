#!/usr/bin/env bash
# Takes an archive of a release to where there is nothing else, and starts what is in it there.
#
#   .ci/archive-test.sh ARCHIVE [LIST]     tandem-VERSION-TARGET.tar.gz as .ci/archive.sh packs it, with its SHA-256 beside it
#
# "Nothing else" is a root with the program, /proc, /dev/null and a folder that it may write to; for glibc the libraries of LIST
# (.ci/plain-linux.txt) too. There is no shell, no certificate authority, no /etc, and no OpenSSL that LIST does not have. Needs root, Linux, and the packages binutils,
# curl, openssl, python3 and util-linux.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=k8s/trial.sh
source "$here/../k8s/trial.sh"
fail() { printf 'archive: %s\n' "$*" >&2; exit 1; }

[[ ($# == 1 || $# == 2) && -f "$1" ]] || fail "give the archive: .ci/archive-test.sh archives/tandem-VERSION-TARGET.tar.gz"
archive="$(realpath "$1")" list="$(realpath "${2:-$here/plain-linux.txt}")"
needs_tools "binutils curl openssl python3 util-linux" readelf curl openssl python3 unshare setpriv sha256sum
needs_mounts

name="$(basename "$archive" .tar.gz)"
version="$("$here/archive.sh" version)"
target="${name#"tandem-$version-"}"
[[ "$target" != "$name" ]] || fail "$name is not of version $version"

scratch="$(mktemp -d "${TMPDIR:-/tmp}/tandem-archive.XXXXXX")"
finish() {
    local status=$?
    trap - EXIT
    end_started "$status"
    rm -rf "$scratch"
    exit "$status"
}
trap finish EXIT

# --- what is in it ----------------------------------------------------------------------------------------------------

(cd "$(dirname "$archive")" && sha256sum --check --strict --quiet "$name.tar.gz.sha256") || fail "its SHA-256 is another one"
mkdir "$scratch/unpacked"
tar -C "$scratch/unpacked" -xzf "$archive"
folder="$scratch/unpacked/$name"
[[ "$(ls "$scratch/unpacked")" == "$name" ]] || fail "it has more than the folder $name"
(cd "$folder" && sha256sum --check --strict --quiet SHA256SUMS) || fail "what is in it is not what its SHA256SUMS says"
for file in LICENSE README.md CHANGELOG.md man/tandem.1 man/tandem-up.1 completions/{tandem,_tandem,tandem.fish,tandem.elv,_tandem.ps1}; do
    [[ -s "$folder/$file" ]] || fail "$file is missing"
done
bash -n "$folder/completions/tandem" || fail "bash does not take the completions"
python3 - "$folder/sbom.cdx.json" "$version" "$target" <<'CHECK' || fail "the SBOM is not of this program"
import json, sys
path, version, target = sys.argv[1:]
document = json.load(open(path, encoding="utf-8"))
about = document["metadata"]
program = (about["component"]["name"], about["component"]["version"])
assert program == ("tandem", version), program
assert about["properties"] == [{"name": "cargo:target", "value": target}], about["properties"]
assert document["components"], "no components"
CHECK
held "the archive ($(du -h "$archive" | cut -f1)) has a program ($(du -h "$folder/tandem" | cut -f1)), manual pages, completions and an SBOM, as its sums say"

# --- where there is nothing else --------------------------------------------------------------------------------------

user=65532
root="$scratch/root"
mkdir -p "$root"/{data,dev,proc}
touch "$root/dev/null"
chown "$user:$user" "$root/data"
cp "$folder/tandem" "$root/tandem"
case "$target" in
*-linux-musl) ;;
*-linux-gnu)
    # Each of the list that this system has: not the whole list is of every processor.
    installed="$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p)"
    while read -r _ words; do
        for library in $words; do
            [[ "$library" != *"<="* ]] || continue
            path="$(awk -v name="$library" '$1 == name && /x86-64|AArch64/ { print $NF; exit }' <<<"$installed")"
            [[ -n "$path" ]] || continue
            mkdir -p "$root$(dirname "$path")"
            cp -L "$path" "$root$path"
        done
    done < <(grep -v -e '^#' -e '^$' "$list")
    # The linker is where the program asks for it.
    linker="$(readelf --program-headers --wide "$folder/tandem" | sed -n 's/.*program interpreter: \(.*\)\]/\1/p')"
    mkdir -p "$root$(dirname "$linker")"
    cp -L "$linker" "$root$linker"
    ;;
*) fail "no root is known for $target" ;;
esac

# bare ARGUMENT…: becomes the program in that root, as a user without rights. What is mounted there goes with it.
bare() {
    # shellcheck disable=SC2016 # the inner shell's own variables
    exec unshare --mount --propagation private bash -c '
        set -e
        root="$1" user="$2"; shift 2
        mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
        mount --bind /dev/null "$root/dev/null"
        exec env -i /usr/bin/setpriv --no-new-privs --clear-groups /usr/bin/unshare --root="$root" --wd=/ --setgid "$user" --setuid "$user" /tandem "$@"
    ' bare "$root" "$user" "$@"
}

said="$(bare --version)" || fail "--version ends with an error"
[[ "$(head -n 1 <<<"$said")" == "tandem $version" ]] || fail "--version says: $said"
for completion in bash:tandem zsh:_tandem fish:tandem.fish elvish:tandem.elv powershell:_tandem.ps1; do
    (bare completions "${completion%%:*}") | cmp -s - "$folder/completions/${completion#*:}" || fail "completions for ${completion%%:*} are not those of the archive"
done
(bare man --to /data/man) || fail "man ends with an error"
diff -rq "$folder/man" "$root/data/man" || fail "the manual pages are not those of the archive"
rm -r "$root/data/man"
held "it starts in a root of $(find "$root" -type f | wc -l) files: $(tr '\n' ' ' <<<"$said")"

read -r broker accounts orders gateway <<<"$(free_ports 4)"
# With a group of its own, as a terminal gives it: Ctrl-C goes to all of a group, and what a script starts beside itself ignores it.
set -m
(bare up --data-dir /data --broker-port "$broker" --accounts-port "$accounts" --orders-port "$orders" --gateway-port "$gateway") \
    >"$scratch/up.out.log" 2>"$scratch/up.log" &
up=$!
set +m
started+=("$up")
of="$up" until_true 90 "up is ready" grep -q '^ready' "$scratch/up.out.log" "$scratch/up.log"
held "$(grep -h '^ready' "$scratch/up.out.log" "$scratch/up.log")"

# ask DOCUMENT: asks the gateway from outside; what it answers is in $answer.
ask() {
    answer="$(curl -s --max-time 10 -H 'content-type: application/json' -d "{\"query\": \"$1\"}" "http://127.0.0.1:$gateway/graphql")" \
        || fail "the gateway does not answer"
}
ask 'mutation { createCustomer(input: {name: {firstName: \"Ada\", lastName: \"Lovelace\"}, contact: {primaryPhone: \"+44 20 7946 0001\", email: \"ada@example.org\"}}) { customer { id } } }'
customer="$(sed -n 's/.*"customer":{"id":"\([^"]*\)".*/\1/p' <<<"$answer")"
[[ -n "$customer" ]] || fail "no customer can be made: $answer"
# Through both services, the broker and both stores.
limit=$((SECONDS + 30))
until ask "{ customer(id: \\\"$customer\\\") { name { firstName } orders(first: 1) { nodes { id } } replica { revision } } }" \
    && [[ "$answer" == *'"firstName":"Ada"'* && "$answer" == *'"replica":{"revision":'* && "$answer" != *'"errors"'* ]]; do
    ((SECONDS < limit)) || fail "the customer does not arrive in orders: $answer"
    sleep 0.1
done
held "the gateway answers from both services: $answer"

processes="$(python3 - "$root/tandem" <<'LIST'
import os, sys
wanted = os.stat(sys.argv[1])
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if os.path.samestat(os.stat(f"/proc/{pid}/exe"), wanted): print(pid)
    except OSError:
        pass
LIST
)"
[[ "$(wc -w <<<"$processes")" == 5 ]] || fail "up and four roles are five processes, not: $processes"
for process in $processes; do
    grep -qE "^Uid:\s+$user\s+$user\s+$user\s+$user$" "/proc/$process/status" || fail "process $process is not of user $user"
done
kill -INT -- "-$up"
limit=$((SECONDS + 20))
while kill -0 "$up" 2>/dev/null; do
    ((SECONDS < limit)) || fail "up does not end within 20 s of Ctrl-C"
    sleep 0.1
done
status=0
wait "$up" || status=$?
((status == 0)) || fail "up ended with status $status at Ctrl-C"
for process in $processes; do
    [[ ! -e "/proc/$process" ]] || fail "process $process is left behind"
done
held "up and its four roles, all of user $user, end at Ctrl-C"

# --- with the authorities of a system ---------------------------------------------------------------------------------

# The OpenSSL in the program is not the system's, and has to find the system's authorities all the same: a stand-in for Kafka tells
# whether the program trusted its certificate.
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
    -keyout "$scratch/key.pem" -out "$scratch/certificate.pem" 2>/dev/null || fail "no certificate can be made"
python3 -u - "$scratch/certificate.pem" "$scratch/key.pem" >"$scratch/kafka" <<'SERVE' &
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:])
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1])
while True:
    connection, _ = listening.accept()
    connection.settimeout(5)
    try:
        context.wrap_socket(connection, server_side=True).close()
        print("trusted")
    except OSError:
        connection.close()
SERVE
started+=("$!")
until_true 10 "the stand-in for Kafka listens" test -s "$scratch/kafka"
kafka="127.0.0.1:$(head -n 1 "$scratch/kafka")"
doctor() { (bare doctor --data-dir /data --kafka-brokers "$kafka" --kafka-property security.protocol=SSL) >"$scratch/doctor-$1.log" 2>&1 || true; }
doctor without
grep -q 'is not trusted' "$scratch/doctor-without.log" || fail "without authorities doctor does not say that the certificate is not trusted"
if grep -q trusted "$scratch/kafka"; then fail "without authorities a certificate is trusted"; fi
mkdir -p "$root/etc/ssl/certs"
cp "$scratch/certificate.pem" "$root/etc/ssl/certs/ca-certificates.crt"
doctor with
grep -q trusted "$scratch/kafka" || fail "the system's authorities are not found"
held "the system's authorities, and no others, are trusted for Kafka"

if grep -l panicked "$scratch"/*.log; then fail "something panicked"; fi
printf '%s holds what it promises.\n' "$name"
