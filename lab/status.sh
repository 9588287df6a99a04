#!/bin/bash
# status.sh
# Shows the lab's services, the states of its instances and the injected faults. Only reads.
# Status 0: every service runs; 1: a service is dead, or there is no lab.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_asked "$@"
need_root
need_lab

dead=()
echo "services (state in $LAB_STATE, logs in $LOG and /var/log/SERVICE)"
for f in "$RUN"/*.cmd; do
  [ -e "$f" ] || continue
  name=${f##*/} name=${name%.cmd}
  case $name in fault-*) continue ;; esac
  if ! alive "$name"; then
    dead+=("$name")
  elif grep -q '^State:[[:space:]]*T' "/proc/$(pid_of "$name")/status"; then
    printf '  %-26s pid %-7s STOPPED (by a signal)\n' "$name" "$(pid_of "$name")"
  else
    printf '  %-26s pid %s\n' "$name" "$(pid_of "$name")"
  fi
done
for name in "${dead[@]}"; do printf '  %-26s DEAD\n' "$name"; done

if alive mariadb; then
  printf '\n%-13s %-18s %-15s %-10s %s\n' instance nova task libvirt UUID
  instance_table | awk -F'\t' '{ printf "%-13s %-18s %-15s %-10s %s\n", $1, $2, $3, $5, $6 }' || true
fi

printf '\nfaults: '
found=
for f in "$FAULTS"/*/target; do
  [ -e "$f" ] || continue
  found=1
  (
    I='' freeze=''
    # shellcheck source=/dev/null  # assignments, written by break.sh
    . "$f"
    [ "$I" != - ] || I='the host'
    printf '\n  %-22s on %s%s' "$(basename "$(dirname "$f")")" "$I" "${freeze:+, nova-compute frozen}"
  )
done
[ -n "$found" ] && echo || echo none
[ ${#dead[@]} = 0 ] || exit 1
