#!/bin/bash
# instances.sh
# Boots the lab's seventeen instances through nova's API and drives each into its state (about 90
# seconds). Safe to run again: an instance in its state is left alone; an instance in another state,
# after a reboot or an experiment, is brought back.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_asked "$@"
need_root
need_cloud
active=$(ls "$FAULTS")
[ -z "$active" ] || die "faults are injected, and this script would repair half of them: ${active//$'\n'/ } (lab/fix.sh --all undoes them)"
T0=$(date +%s)
stage instances "all at the same time"
NOTE=/var/log/nova/nova-compute.log
wait_for 150 "nova-compute to be up and connected to libvirt" compute_ready
lab_python instances.py || die "see the line above"
stage_end
total=$(($(date +%s) - T0))
timed "TOTAL instances.sh" "$total"
instance_table | awk -F'\t' 'BEGIN { printf "%-13s %-18s %s\n", "instance", "nova", "libvirt" } { printf "%-13s %-18s %s\n", $1, $2, $5 }'
say "the instances are ready, in $total s"
