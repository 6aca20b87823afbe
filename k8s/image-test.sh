#!/usr/bin/env bash
# Builds the image and starts every role in it as Kubernetes would: as the image's own user, without privileges, with a root that
# cannot be written to and one writable volume.
#
#   k8s/image-test.sh PROGRAM      a `tandem` that was compiled on Debian 12, such as target/release/tandem
#
# No container engine and no registry are needed: the base is made from the packages in distroless-cc-debian12.txt, exactly
# those, and the image by `buildah` from k8s/Dockerfile, with PROGRAM in place of the stage that compiles. Needs root, Debian 12, and the
# packages buildah, binutils, curl and python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=k8s/trial.sh
source k8s/trial.sh
fail() { printf 'image: %s\n' "$*" >&2; exit 1; }

[[ $# == 1 && -f "$1" ]] || fail "give the program: k8s/image-test.sh target/release/tandem"
program="$(realpath "$1")"
needs_tools "buildah binutils curl python3 util-linux" buildah readelf strip curl python3 unshare setpriv
grep -q '^VERSION_CODENAME=bookworm$' /etc/os-release || fail "needs Debian 12: the image's base is made from its packages"
needs_mounts

scratch="$(mktemp -d "${TMPDIR:-/tmp}/tandem-image.XXXXXX")"
finish() {
    local status=$?
    trap - EXIT
    end_started "$status"
    umount -R "$scratch"/store 2>/dev/null || true
    rm -rf "$scratch"
    exit "$status"
}
trap finish EXIT

# --- the image --------------------------------------------------------------------------------------------------------

mkdir -p "$scratch"/{debs,base,given/data,run,store,tmp}
# Symbols are of no use in here, and every layer below is a copy of the whole.
strip -o "$scratch/given/tandem" "$program"
# The base, the program, and each twice more while a layer of it is written.
megabytes() { du -sm "$1" | cut -f1; }
needed=$((6 * ($(megabytes "$scratch/given") + 40)))
free="$(df --output=avail -BM "$scratch" | tail -n 1 | tr -dc 0-9)"
((free >= needed)) || fail "$scratch has $free MB free, the image needs $needed: free some, or set TMPDIR to a folder that has them"

image() { TMPDIR="$scratch/tmp" buildah --root "$scratch/store" --runroot "$scratch/run" --storage-driver vfs "$@"; }

.ci/libraries.py "$program"
held "every shared library of the program is in the base's packages"

packages=()
while read -r package _; do packages+=("$package"); done < <(grep -v -e '^#' -e '^$' k8s/distroless-cc-debian12.txt)
(cd "$scratch/debs" && apt-get download -q "${packages[@]}" >"$scratch/apt.log" 2>&1) || fail "the base's packages cannot be had: $(tail -n 3 "$scratch/apt.log")"
for package in "$scratch"/debs/*.deb; do dpkg-deb --extract "$package" "$scratch/base"; done
# As distroless has it: the authorities in one file, and the user.
mkdir -p "$scratch/base/etc/ssl/certs" "$scratch/base/home/nonroot"
cat "$scratch"/base/usr/share/ca-certificates/mozilla/*.crt >"$scratch/base/etc/ssl/certs/ca-certificates.crt"
printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$scratch/base/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$scratch/base/etc/group"
chown -R 65532:65532 "$scratch/base/home/nonroot"

working="$(image from scratch)"
cp -a "$scratch/base/." "$(image mount "$working")/"
image umount "$working" >/dev/null
image config --env PATH=/usr/local/bin:/usr/bin:/bin --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt "$working"
image commit -q "$working" localhost/base >/dev/null
image rm "$working" >/dev/null

image build -q --layers=false --isolation chroot --build-context "build=$scratch/given" --build-arg BASE=localhost/base \
    --file k8s/Dockerfile --tag localhost/tandem . >"$scratch/build.log" 2>&1 || fail "the image cannot be built"
held "the image is built from k8s/Dockerfile, $(du -sh "$scratch/given/tandem" | cut -f1) of program on $(du -sh "$scratch/base" | cut -f1) of base"

# What the image says of itself is what is run.
eval "$(image inspect --type image localhost/tandem | python3 -c '
import json, shlex, sys
config = json.load(sys.stdin)["OCIv1"]["config"]
words = lambda values: "(" + " ".join(map(shlex.quote, values)) + ")"
user, group = map(int, config["User"].split(":"))
print("user=%d group=%d folder=%s" % (user, group, shlex.quote(config["WorkingDir"])))
for name, key in (("environment", "Env"), ("entrypoint", "Entrypoint"), ("volumes", "Volumes")):
    print(name + "=" + words(config.get(key, [])))
')"
[[ "$user" != 0 && "$group" != 0 ]] || fail "the image's user is root"
[[ "${volumes[*]}" == "$folder" ]] || fail "the working folder $folder is not the volume (${volumes[*]})"
working="$(image from --pull=never localhost/tandem)"
root="$(image mount "$working")"

# --- a container ------------------------------------------------------------------------------------------------------

# start NAME [VARIABLE=VALUE…] -- ARGUMENT…: runs the image with a volume of its own; the log is NAME.log, the process in $last.
start() {
    local name="$1" given=()
    shift
    while [[ "$1" != -- ]]; do given+=("$1"); shift; done
    shift
    mkdir -p "$scratch/volumes/$name"
    chown "$user:$group" "$scratch/volumes/$name"
    # shellcheck disable=SC2016 # the inner shell's own variables
    unshare --mount --pid --fork --kill-child --propagation private bash -c '
        set -e
        root="$1" volume="$2" folder="$3" user="$4" group="$5"; shift 5
        mount --bind "$root" "$root"
        mount --bind "$volume" "$root$folder"
        mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
        mount -t tmpfs -o nosuid,mode=755 dev "$root/dev"
        for device in null zero random urandom; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
        mount -o remount,bind,ro "$root/dev"
        mount -o remount,bind,ro "$root"
        given=(); while [[ "$1" != -- ]]; do given+=("$1"); shift; done; shift
        exec env -i "${given[@]}" /usr/bin/setpriv --no-new-privs /usr/bin/unshare --root="$root" --wd="$folder" \
            --setgid "$group" --setuid "$user" "$@"
    ' start "$root" "$scratch/volumes/$name" "$folder" "$user" "$group" "${environment[@]}" "${given[@]}" -- "${entrypoint[@]}" "$@" \
        >"$scratch/$name.out.log" 2>"$scratch/$name.log" &
    last=$!
    started+=("$last")
}

answers() { curl -sf --max-time 2 -o /dev/null "$1"; }
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1"); }
says() { grep -q -e "$2" "$scratch/$1"; }

# confined NAME PID: the process has no rights and cannot write to its root.
confined() {
    local process
    process="$(pgrep -P "$2")"
    python3 - "$1" "$process" "$user" "$group" <<'CHECK' || fail "$1 is not confined"
import sys
name, process, user, group = sys.argv[1:]
status = dict(line.split(":\t", 1) for line in open(f"/proc/{process}/status").read().splitlines() if ":\t" in line)
mounts = {line.split()[4]: line.split()[5].split(",") for line in open(f"/proc/{process}/mountinfo")}
assert set(status["Uid"].split()) == {user} and set(status["Gid"].split()) == {group}, status["Uid"]
assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0, status["CapEff"]
assert status["NoNewPrivs"] == "1" and not status["Groups"].strip(), status["Groups"]
assert "ro" in mounts["/"], mounts
CHECK
}

# json NAME: all that the role logged is JSON, one object a line. The gateway may have said nothing: it warns only.
json() {
    python3 - "$scratch/$1.log" "$scratch/$1.out.log" <<'CHECK' || fail "$1 does not log JSON"
import json, sys
lines = [line for file in sys.argv[1:] for line in open(file) if line.strip()]
assert lines or "router" in sys.argv[1], "no line at all"
for line in lines:
    try:
        assert isinstance(json.loads(line), dict)
    except ValueError:
        sys.exit(f"no JSON: {line}")
CHECK
}

# stopped NAME PID: ends by itself when it is told to.
stopped() {
    kill -TERM "$(pgrep -P "$2")"
    local limit=$((SECONDS + 10))
    while kill -0 "$2" 2>/dev/null; do
        ((SECONDS < limit)) || fail "$1 does not end within 10 s of SIGTERM"
        sleep 0.1
    done
    local status=0
    wait "$2" || status=$?
    ((status == 0)) || fail "$1 ended with status $status"
}

# --- every role -------------------------------------------------------------------------------------------------------

start version -- --version
wait "$last" || fail "--version ends with an error"
says version.out.log '^tandem [0-9]' || fail "--version says: $(cat "$scratch/version.out.log")"
held "--version: $(cat "$scratch/version.out.log")"

read -r broker accounts orders gateway <<<"$(free_ports 4)"
key="$(head -c 32 /dev/urandom | base64)"
declare -A pids

for role in accounts router up; do
    start "closed-$role" TANDEM_SEALING_KEY="$key" -- "$role"
    ! wait "$last" || fail "$role starts without authentication where others reach it"
    says "closed-$role.log" --insecure-no-auth || fail "$role does not say how it would start: $(cat "$scratch/closed-$role.log")"
done
held "no role starts without authentication where others reach it"

# From here on nobody is asked for a token: only this machine reaches the ports, and who may do what is tested elsewhere.
open=TANDEM_INSECURE_NO_AUTH=true
start broker TANDEM_LOG_FORMAT=json -- broker --port "$broker"
pids[broker]=$last
until_true 30 "the broker listens" listens "$broker"
for service in accounts orders; do
    # A value with a newline at its end, as many a Secret has it.
    start "$service" "$open" TANDEM_LOG_FORMAT=json TANDEM_KAFKA_BROKERS="127.0.0.1:$broker" TANDEM_SEALING_KEY="$key"$'\n' -- "$service" --port "${!service}"
    pids[$service]=$last
done
start router "$open" TANDEM_LOG_FORMAT=json RUST_LOG=info,tandem=info TANDEM_ACCOUNTS_URL="http://127.0.0.1:$accounts" TANDEM_ORDERS_URL="http://127.0.0.1:$orders" -- router --port "$gateway"
pids[router]=$last
for service in accounts orders; do
    until_true 60 "$service is ready" answers "http://127.0.0.1:${!service}/actuator/health/readiness"
done
until_true 60 "the gateway is ready" answers "http://127.0.0.1:$gateway/actuator/health/readiness"
for role in broker accounts orders router; do
    confined "$role" "${pids[$role]}"
    json "$role"
    held "$role is ready as user $user, without capabilities, on a root that is read-only, and logs JSON"
done

code="$(curl -s --max-time 10 -o /dev/null -w '%{http_code}' -H 'content-type: application/json' \
    -d '{"id": 1, "name": {"firstName": "Ada", "lastName": "Lovelace"}, "contact": {"primaryPhone": "555-666-7777", "email": "ada@example.com"}, "addresses": [], "creditCards": []}' \
    "http://127.0.0.1:$gateway/accounts/customer/create")"
[[ "$code" == 201 ]] || fail "a customer cannot be created: $code"
until_true 30 "the customer is known to orders" answers "http://127.0.0.1:$gateway/orders/order/1"
held "a customer created through the gateway is known to orders"
for role in router orders accounts broker; do
    stopped "$role" "${pids[$role]}"
done
held "all four end within 10 s of SIGTERM"

read -r broker accounts orders gateway <<<"$(free_ports 4)"
start up "$open" TANDEM_BROKER_PORT="$broker" TANDEM_ACCOUNTS_PORT="$accounts" TANDEM_ORDERS_PORT="$orders" TANDEM_GATEWAY_PORT="$gateway" -- up
up=$last
until_true 90 "up is ready" grep -q '^ready' "$scratch/up.out.log" "$scratch/up.log"
answers "http://127.0.0.1:$gateway/actuator/health/readiness" || fail "the gateway of up does not answer"
confined up "$up"
stopped up "$up"
held "up runs everything in one container, and ends when told to"
printf 'The image starts in every role.\n'
