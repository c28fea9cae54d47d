#!/usr/bin/env bash
# A night's work for cron: what arrived is loaded, what is stale is done, a gate is kept, a batch is ranked.
#   nightly.sh WORKSPACE INBOX OUTBOX GATE.toml
#   15 2 * * *  /opt/ads/nightly.sh /srv/shop /srv/inbox /srv/outbox /srv/gate.toml
# INBOX has folders of files (events.jsonl, ads.csv ...), and perhaps requests.jsonl. OUTBOX gets slates.jsonl
# and report.html. Exit codes are those of adstool: 0 done, 1 failed, 3 the gate was not passed, and then the
# slates of the night before stay. Needs nothing but bash and adstool; ADSTOOL names another one.
set -euo pipefail

workspace=$1 inbox=$2 outbox=$3 gate=$4
adstool=(${ADSTOOL:-adstool} --workspace "$workspace" --quiet)
loaded=$workspace/loaded # names of folders that are in the warehouse
mkdir -p "$outbox"
touch "$loaded"

say() { printf '%s %s\n' "$(date -u +%FT%TZ)" "$*"; }

# Loading twice changes nothing, so a night that was cut off here does no harm; the list only saves the reading.
for folder in "$inbox"/*/; do
    name=$(basename "$folder")
    if [ -d "$folder" ] && ! grep -qxF -- "$name" "$loaded"; then
        say "ingest $name"
        "${adstool[@]}" ingest "$folder"
        printf '%s\n' "$name" >>"$loaded"
    fi
done

say run
if ! "${adstool[@]}" run; then
    say "run failed; where and why: adstool --workspace $workspace status"
    exit 1
fi

say gate
code=0
"${adstool[@]}" evaluate engagement --gate "$gate" >"$outbox/quality.txt" || code=$?
if [ "$code" -eq 0 ] && [ -f "$inbox/requests.jsonl" ]; then
    say rank
    # Written aside and renamed: whoever reads the slates never sees half of them.
    "${adstool[@]}" rank --requests "$inbox/requests.jsonl" >"$outbox/slates.jsonl.new"
    mv "$outbox/slates.jsonl.new" "$outbox/slates.jsonl"
fi
"${adstool[@]}" report -o "$outbox/report.html"
say "done, exit code $code"
exit "$code"
