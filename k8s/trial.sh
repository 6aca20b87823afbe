# Sourced by image-test.sh, server-check.sh and .ci/archive-test.sh, which have a `fail`: what holds is told, with how long it took, and what was
# started is ended.
# shellcheck shell=bash

begun=$SECONDS
held() { printf '%4d s  held: %s\n' "$((SECONDS - begun))" "$*"; }

# needs_tools PACKAGES TOOL…: the packages of Debian that have all of these.
needs_tools() {
    local packages="$1" tool
    shift
    for tool in "$@"; do command -v "$tool" >/dev/null || fail "$tool is missing: apt-get install $packages"; done
}

needs_mounts() {
    [[ "$(id -u)" == 0 ]] || fail "needs root, to make mounts"
    unshare --mount true 2>/dev/null || fail "this machine does not let root make a mount namespace (CAP_SYS_ADMIN)"
}

# free_ports COUNT: ports of the loopback interface on which nobody listens, in one line.
free_ports() { python3 -c '
import socket
sockets = [socket.socket() for _ in range(int('"$1"'))]
for one in sockets: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in sockets))'; }

# [of=PID] until_true SECONDS WHAT COMMAND…: no longer than that process lives, if one is given.
until_true() {
    local limit=$((SECONDS + $1)) what="$2"
    shift 2
    until "$@" >/dev/null 2>&1; do
        [[ -z "${of:-}" ]] || kill -0 "$of" 2>/dev/null || fail "$what: it has ended"
        ((SECONDS < limit)) || fail "$what: not within the time limit"
        sleep 0.2
    done
}

# Processes that end with the trial.
started=()

# Ends what was started. Where the trial failed, shows the end of each log in $scratch.
end_started() { # end_started STATUS
    local pid log
    for pid in "${started[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    if (($1 == 0)); then return; fi
    for log in "$scratch"/*.log; do
        if [[ -s "$log" ]]; then
            printf -- '--- %s\n' "$(basename "$log")" >&2
            tail -n 20 "$log" >&2
        fi
    done
}
