# What the examples' `run` scripts share; sourced by them, from bash.
#
# A script ends all that it started when it ends, in whichever way.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
shop=$(basename "$here")
project=$(cd "$here/../../.." && pwd)

# Where shops are installed, and where their logs are.
work=${SHOPS:-$project/target/shops}/$shop
mkdir -p "$work"

# The load generator: $LOADTEST, or the newest that was built.
if [ -z "${LOADTEST:-}" ]; then
    LOADTEST=$(ls -t "$project"/target/{dist,release,debug}/loadtest 2>/dev/null | head -1 || true)
    [ -n "$LOADTEST" ] || { echo "$shop: build the load generator first: cargo build --release" >&2; exit 64; }
fi
export LOADTEST

# Servers of our own, unless we already run beside them: `needs_servers postgres "$@"`.
needs_servers() {
    local servers=$1 variable
    shift
    variable=$(echo "${servers%%,*}" | tr '[:lower:]' '[:upper:]')_URL
    [ -n "${!variable:-}" ] || exec "$LOADTEST" lab --only "$servers" -- "$here/run" "$@"
}

started=()
end_all() {
    local id
    local moment
    for id in "${started[@]}"; do kill "$id" 2>/dev/null || true; done
    # One that hangs does not end when it is asked to.
    for moment in {1..50}; do kill -0 "${started[@]}" 2>/dev/null && sleep 0.1 || break; done
    for id in "${started[@]}"; do kill -KILL "$id" 2>/dev/null || true; done
    for id in "${started[@]}"; do wait "$id" 2>/dev/null || true; done
}
trap end_all EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# `start NAME COMMAND…`: a process of the shop, with its log in $work/NAME.log.
start() {
    local name=$1
    shift
    setpriv --pdeathsig KILL -- "$@" >"$work/$name.log" 2>&1 </dev/null &
    started+=($!)
}

# `free_ports N`: ports that nobody listens on, all different.
free_ports() {
    python3 - "$1" <<'END'
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))
END
}

free_port() { free_ports 1; }

# `await_url NAME URL [SECONDS]`: until it answers, with whatever status.
await_url() {
    local name=$1 url=$2 left=${3:-120} id
    until curl --silent --output /dev/null --max-time 5 "$url"; do
        left=$((left - 1))
        for id in "${started[@]}"; do kill -0 "$id" 2>/dev/null || left=0; done
        if [ "$left" -le 0 ]; then
            echo "$shop: $name does not answer at $url; its log ends so:" >&2
            tail -20 "$work/$name.log" >&2
            exit 64
        fi
        sleep 1
    done
}

# `quietly NAME COMMAND…`: with its output in $work/NAME.log, which is shown when it fails.
quietly() {
    local name=$1
    shift
    "$@" >"$work/$name.log" 2>&1 || { echo "$shop: $name failed:" >&2; tail -30 "$work/$name.log" >&2; exit 64; }
}

# `once NAME FILE COMMAND…`: what is done again only when the file has changed.
once() {
    local mark=$work/.$1.done file=$2
    shift 2
    cmp --silent "$file" "$mark" && return
    "$@"
    cp "$file" "$mark"
}

# The load, as the last thing of a script. A request to stop is passed on, and the verdict waited for.
load() {
    local id code
    "$LOADTEST" run --target-file "$here/shop.toml" "$@" &
    id=$!
    trap 'kill "$id" 2>/dev/null || true' TERM INT
    while :; do
        code=0
        wait "$id" || code=$?
        # A signal ends the waiting, and not what is waited for.
        kill -0 "$id" 2>/dev/null || break
    done
    exit "$code"
}
