#!/bin/sh
# Waits until the engine answers:  sh health.sh ADDRESS PORT [SECONDS]
set -eu
[ $# -ge 2 ] || { echo 'sh health.sh ADDRESS PORT [SECONDS]' >&2; exit 64; }
left=${3:-7200}
ask() {
  if command -v curl >/dev/null 2>&1; then curl -fsS -o /dev/null --max-time 10 "$1" 2>/dev/null; else wget -q -O /dev/null -T 10 "$1"; fi
}
until ask "http://$1:$2/health"; do
  [ "$left" -gt 0 ] || { echo "http://$1:$2/health does not answer" >&2; exit 1; }
  left=$((left - 10))
  sleep 10
done
echo "http://$1:$2 is ready"
