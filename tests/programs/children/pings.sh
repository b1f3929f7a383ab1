#!/bin/sh
# Ready at once, and then a ping now and then for as long as the file that it is told of is there.
systemd-notify --ready --status="the script runs" || echo "systemd-notify --ready did not work"
while :; do
  if [ -e "$1" ]; then
    systemd-notify WATCHDOG=1 || echo "systemd-notify WATCHDOG=1 did not work"
  fi
  sleep 0.3
done
