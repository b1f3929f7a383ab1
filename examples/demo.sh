#!/usr/bin/env bash
# castoff's main job, on a real program that knows nothing of it: Python's web
# server. Builds castoff, starts the server below it, asks the probes as soon as
# castoff sees that the server listens, requests a stop, and goes on asking for a while as a load balancer does that learns of it
# late: the drain ends when the traffic has. Needs Rust and python3; loopback only.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --locked
castoff=$(find "${CARGO_TARGET_DIR:-target}" -path '*/release/castoff' -type f | head -n 1)
site=$(mktemp -d)
echo 'hello from a program that knows nothing of castoff' >"$site/index.html"
log=$site/castoff.log
trap 'kill "$pid" 2>/dev/null || true; rm -rf "$site"' EXIT

# Prints "GET path -> status body" for a port and a path.
get() {
  python3 - "$@" <<'PY'
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=10)
connection.request("GET", sys.argv[2])
answer = connection.getresponse()
body = answer.read().decode().strip().replace("\n", "\n" + " " * 8)
print(f"  :{sys.argv[1]}{sys.argv[2]} -> {answer.status} {body}")
PY
}

# Waits for a line with this text in castoff's log.
await() {
  for _ in $(seq 500); do
    if grep -q -- "$1" "$log"; then return; fi
    sleep 0.02
  done
  echo "no '$1' in castoff's log:" >&2
  cat "$log" >&2
  exit 1
}

echo
options=(--ready-check listen:8080 --drain-delay 1s --drain-max 8s)
echo "\$ castoff ${options[*]} --health-listen 127.0.0.1:9911 -- python3 -m http.server 8080"
"$castoff" "${options[@]}" --health-listen 127.0.0.1:9911 -- \
  python3 -u -m http.server 8080 --bind 127.0.0.1 --directory "$site" >"$log" 2>&1 &
pid=$!
await '"to":"serving"'
get 8080 /
get 9911 '/readyz?verbose'
get 9911 /livez
"$castoff" probe && echo "  castoff probe -> 0"

echo
echo "\$ kill -TERM castoff      # as a platform does; requests still come for 2 s"
kill -TERM "$pid"
await '"to":"draining"'
get 9911 /readyz
get 9911 /livez
for _ in 1 2 3 4 5; do
  get 8080 /
  sleep 0.4
done
code=0
wait "$pid" || code=$?

echo
echo "castoff's log:"
grep '^{' "$log" | sed 's/^/  /'
echo
echo "castoff exited with $code: the child's own end by SIGTERM is 128 + 15."
[ "$code" = 143 ]
