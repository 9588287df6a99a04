#!/bin/bash
# test-faults.sh [NAME...]
# Injects each fault (or those named), checks that it is in effect, undoes it, and checks that the cloud
# is the same as before. Run lab/instances.sh first; a fault takes about five seconds. Appends to
# faults.tsv in the lab's state folder. Status 1 if a fault failed.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$LAB_DIR/faults.sh"
help_if_asked "$@"
need_root
need_cloud
[ -z "$(ls "$FAULTS")" ] || die "faults are already injected: lab/fix.sh --all undoes them"
names=("$@")
[ $# -gt 0 ] || names=("${F_NAMES[@]}")

picture() { # what must be the same after a fault is undone
  instance_table
  echo "services: $(running_names | sort | tr '\n' ' ')"
  echo "nova-compute disabled: $(sql "select disabled from nova.services where \`binary\` = 'nova-compute' and deleted = 0")"
  echo "qemu processes: $(guest_pids "" | sort -u | wc -l)"
  echo "mounts: $(grep -cE "$INSTANCES|$LAB_STATE/faults" /proc/mounts || true)"
  echo "allocations: $(sql "select count(*), sum(used) from placement.allocations")"
  echo "attached: $(sql "select count(*) from nova.block_device_mapping where deleted = 0")"
  echo "ports: $(sql "select count(*) from neutron.ports")"
  echo "images: $(sql "select count(*) from glance.images where deleted = 0")"
  find "$INSTANCES" -not -path '*/locks*' -printf '%P\n' | sort
}
as_before() { [ "$(picture 2>&1)" = "$before" ]; }

# shellcheck disable=SC2016  # the backtick is markdown's
[ "$(grep '^| `' "$LAB_DIR/README.md")" = "$("$LAB_DIR/break.sh" --markdown | grep '^| `')" ] ||
  die "the table of faults in lab/README.md is outdated: lab/break.sh --markdown prints it"
before=$(picture)
bad=0 T0=$(date +%s)
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for n in "${names[@]}"; do
  t=$(date +%s) res=ok
  if ! "$LAB_DIR/break.sh" "$n" >"$out" 2>&1; then
    res="FAIL to inject"
  elif ! "$LAB_DIR/fix.sh" "$n" >>"$out" 2>&1; then
    res="FAIL to undo"
  elif ! until_ok 60 as_before; then
    res="FAIL to restore the cloud"
    diff <(echo "$before") <(picture 2>&1) >>"$out" || true
  fi
  printf '%-22s %3d s  %s\n' "$n" "$(($(date +%s) - t))" "$res"
  printf '%s\t%s\t%s\n' "$n" "$res" "$(($(date +%s) - t))" >>"$LAB_STATE/faults.tsv"
  if [ "$res" != ok ]; then
    bad=$((bad + 1))
    tail -n 15 "$out" | sed 's/^/      /'
  fi
done
total=$(($(date +%s) - T0))
timed "TOTAL test-faults.sh, ${#names[@]} faults" "$total"
say "$bad of ${#names[@]} faults failed, in $total s"
[ "$bad" = 0 ] || exit 1
