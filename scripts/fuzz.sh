#!/usr/bin/env bash
# Runs every fuzz target for SECONDS (60 unless told), as many at a time as there are processors.
# Needs stable Rust and a C++ compiler. Usage: scripts/fuzz.sh [SECONDS [TARGET …]]
#
# Every run takes other ways and starts from what earlier ones kept. With FUZZ_SEED=NUMBER it takes
# the same way from the fixtures alone every time, as far as the time suffices.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
export LC_ALL=C

seconds=${1:-60}
shift || true
work=target/fuzz
seed=${FUZZ_SEED:-0}
targets=("$@")
[ ${#targets[@]} -gt 0 ] ||
    mapfile -t targets < <(sed -n 's/^path = "targets\/\(.*\)\.rs"$/\1/p' fuzz/Cargo.toml)

# The compiler's coverage instrumentation, which libFuzzer reads. `--target` keeps it out of build
# scripts.
host=$(rustc -vV | sed -n 's/^host: //p')
passes="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
passes+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
passes+=" -Cllvm-args=-sanitizer-coverage-pc-table"
passes+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
say "fuzz: building"
RUSTFLAGS="$passes -Ccodegen-units=1 --cfg fuzzing" cargo build --quiet --locked --release \
    --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$work"

# seeds TARGET DIR: starts the corpus of a target from the fixtures.
seeds() {
    local target=$1 dir=$2 count=0 file line
    mkdir -p "$dir"
    case $target in
    dockerfile)
        for file in tests/fixtures/dockerfile/*/*/Dockerfile tests/fixtures/lower/*/Dockerfile; do
            count=$((count + 1))
            cp "$file" "$dir/seed-$count"
        done
        ;;
    ignore_pattern)
        for file in tests/fixtures/ignore/*/.dockerignore; do
            count=$((count + 1))
            cp "$file" "$dir/seed-$count"
        done
        ;;
    expand) lines "$dir" sed -n 's/^[a-z]* ⟦\(.*\)⟧ →.*/0\1/p' tests/fixtures/expand/cases.txt ;;
    flags) lines "$dir" grep -rhoE --include=Dockerfile -e '--(mount|device)=[^ ]+' tests/fixtures ;;
    reference)
        lines "$dir" grep -rhoE --include=Dockerfile -e '^FROM [^ $]+' tests/fixtures
        for file in tests/fixtures/lower/*/config.json; do
            count=$((count + 1))
            cp "$file" "$dir/config-$count"
        done
        ;;
    esac
}

# lines DIR COMMAND…: one seed for each line that a command prints, what stands before the value
# taken off.
lines() {
    local dir=$1 count=0 line
    shift
    while IFS= read -r line; do
        count=$((count + 1))
        line=${line#FROM }
        line=${line#--mount=}
        printf '%s' "${line#--device=}" >"$dir/line-$count"
    done < <("$@" | sort -u)
}

# run TARGET: fuzzes one target; prints the end of its log when it finds something.
run() {
    local target=$1 log=$work/$1.log found=$work/found corpus=$work/corpus/$1
    [ "$seed" = 0 ] || { corpus=$work/from-seed/$target && rm -rf "$corpus"; }
    mkdir -p "$found" "$corpus"
    rm -rf "$work/seeds/$target"
    seeds "$target" "$work/seeds/$target"
    # In an order that is the same everywhere, as `-seed` needs it.
    find "$work/seeds/$target" -type f | sort | paste -sd, >"$work/$target.seeds"
    if "$work/$host/release/$target" "$corpus" -seed_inputs="@$work/$target.seeds" \
        -seed="$seed" -max_total_time="$seconds" -max_len=4096 -timeout=10 \
        -rss_limit_mb=2048 -artifact_prefix="$found/$target-" >"$log" 2>&1; then
        echo "$target: $(find "$corpus" -type f | wc -l) texts," \
            "$(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$log") runs, nothing found"
    else
        tail -n 60 "$log" >&2
        echo "$target: found something, see $found" >&2
        return 1
    fi
}
export -f run seeds lines
export work host seconds seed

say "fuzz: ${targets[*]}, $seconds s each"
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -euc 'run {}'
