# Sourced by image-test.sh and server-check.sh: what holds is told, with how long it took, and what was started is ended.
# shellcheck shell=bash

begun=$SECONDS
held() { printf '%4d s  held: %s\n' "$((SECONDS - begun))" "$*"; }

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
