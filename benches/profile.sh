#!/usr/bin/env bash
# Where the broker's time goes: a profile of its process under the first three loads of benches/README.md.
#
#   benches/profile.sh [produce-fsync] [produce-os] [earliest]      all of them without an argument
#
# Needs Linux `perf`, and the release build. Leaves in target/profiles/ for each load: NAME.txt, the table of the run, the
# share of each thread and of each function; NAME.svg, a flame graph, if `inferno-flamegraph` (cargo install inferno) is there.
set -euo pipefail

cd "$(dirname "$0")/.."
readonly sagwan=target/release/sagwan
readonly out=target/profiles
readonly record_s=5

load_of() {
    case "$1" in
        produce-fsync) echo "produce --in-flight 256" ;;
        produce-os) echo "produce --in-flight 256 --durability os" ;;
        earliest) echo "earliest --backlog 512MiB" ;;
        *) echo "no load $1: use produce-fsync, produce-os or earliest" >&2; return 1 ;;
    esac
}

profile() {
    local name=$1 load bench broker wait_s=5
    load=$(load_of "$name")
    # Its backlog is written first, which 40 MB/s do in that time.
    if [ "$name" = earliest ]; then wait_s=15; fi
    # The load goes on for as long as the wait, and so beyond the profile however soon the measured part begins.
    # shellcheck disable=SC2086 # the load is several words
    "$sagwan" bench $load --warm-up 2s --duration $((wait_s + record_s))s >"$out/$name.txt" 2>"$out/$name.log" &
    bench=$!
    sleep "$wait_s"
    broker=$(pgrep -P "$bench" | tail -n 1)
    perf record --quiet -F 499 --call-graph dwarf,8192 -p "$broker" -o "$out/$name.perf" -- sleep "$record_s"
    wait "$bench"
    for key in comm symbol; do
        echo
        perf report -i "$out/$name.perf" --stdio --no-children -g none --sort "$key" 2>/dev/null |
            awk '!/^(#|$)/ { sub(/( +-)* *$/, ""); if (++lines <= 30) print }'
    done >>"$out/$name.txt"
    if command -v inferno-flamegraph >/dev/null; then
        perf script -i "$out/$name.perf" 2>/dev/null | inferno-collapse-perf | inferno-flamegraph >"$out/$name.svg"
    fi
    rm -f "$out/$name".perf*
    echo "== $name"
    cat "$out/$name.txt"
}

mkdir -p "$out"
if [ $# -eq 0 ]; then set -- produce-fsync produce-os earliest; fi
for name in "$@"; do profile "$name"; done
