#!/bin/bash
# instances.sh
# Boots the lab's seventeen instances through nova's API and drives each into its state (about 90
# seconds). Safe to run again: what is in its state is left alone; what is not, because the machine
# was rebooted or somebody played with it, is brought back there.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_asked "$@"
need_root
need_cloud
active=$(ls "$FAULTS")
[ -z "$active" ] || die "faults are injected, and this would repair half of them: ${active//$'\n'/ } (lab/fix.sh --all undoes them)"
T0=$(date +%s)
stage instances "each goes its own way, all at the same time"
NOTE=/var/log/nova/nova-compute.log
wait_for 150 "nova-compute to be up and to have libvirt" compute_ready
lab_python instances.py || die "see the line above"
stage_end
total=$(($(date +%s) - T0))
timed "TOTAL instances.sh" "$total"
instance_table | awk -F'\t' 'BEGIN { printf "%-13s %-18s %s\n", "instance", "nova", "libvirt" } { printf "%-13s %-18s %s\n", $1, $2, $5 }'
say "the instances are there, in $total s"
