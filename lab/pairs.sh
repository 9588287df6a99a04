#!/bin/bash
# pairs.sh --list      lists situations between the lab's two hosts: name and description
# pairs.sh make NAME   produces one, with its own guests (pair-...); the second host must be up
# pairs.sh undo        deletes these guests and restores the hosts
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
help_if_asked "${1:---help}"

SECOND=${LAB_SECOND:-compute2}
S=$LAB_STATE/second/pairs # data needed to undo
declare -A P_WHAT
P_NAMES=()
pair() { P_NAMES+=("$1") P_WHAT[$1]=$2; }

second() { "$LAB_DIR/second-host.sh" "$@"; }
second_virsh() { second run timeout -k 5 60 virsh -c qemu:///system "$@"; }
uuid_of() { sql "select uuid from nova.instances where deleted = 0 and display_name = '$1'"; }
is() { # NAME VM_STATE HOST: the instance is in that state on that host, without a task
  [ "$(sql "select concat(vm_state, '/', ifnull(task_state, ''), '/', host) from nova.instances where deleted = 0 and display_name = '$1'")" = "$2//$3" ]
}
wait_is() { wait_for 120 "$1 to be $2 on $3 (logs: /var/log/nova/nova-compute.log on both hosts)" is "$@"; }
create() { # NAME HOST
  osc --os-compute-api-version 2.74 server create --flavor lab.tiny --image lab-guest --network lab-net --host "$2" "$1" >/dev/null
  wait_is "$1" active "$2"
  uuid_of "$1" >>"$S/uuids"
}
migrate() { # NAME OPTION...: from the first host to the second
  local name=$1
  shift
  osc --os-compute-api-version 2.74 server migrate --host "$SECOND" "$@" "$(uuid_of "$name")"
}
slow() { tc qdisc add dev hl-second root tbf rate "$1" burst 16kb latency 400ms; } # RATE: from the first host to the second
memory_moves() { virsh domjobinfo "$1" | has '^Memory processed: *[1-9]'; }
moved_away() { # NAME: its live migration is over, and no longer holds resources of the first host
  local over="select uuid from nova.migrations where instance_uuid = '$(uuid_of "$1")' and migration_type = 'live-migration'"
  [ -z "$(sql "$over and status not in ('completed', 'error', 'failed', 'cancelled')")" ] &&
    [ -z "$(sql "select id from placement.allocations where consumer_id in ($over)")" ]
}
forced() { osc --os-compute-api-version 2.53 compute service set "--$1" "$SECOND" nova-compute; } # up, down
evacuate() { # NAME: from the second host to the first
  # client 6.0.0 sends the request, but fails to print the answer: 'TupleWithMeta' has no 'to_dict'
  osc --os-compute-api-version 2.29 server evacuate --host "$LAB_HOST" "$(uuid_of "$1")" 2>/dev/null || true
  wait_is "$1" active "$LAB_HOST"
}

pair healthy "a guest on each host"
p_healthy() {
  create pair-first "$LAB_HOST"
  create pair-second "$SECOND"
}

pair migrated-cold "a cold migration that waits for confirmation: VERIFY_RESIZE on the second host, its old disk on the first"
p_migrated_cold() {
  create pair-cold "$LAB_HOST"
  migrate pair-cold
  wait_is pair-cold resized "$SECOND"
}

pair migrating "a live migration with its disks, in progress over a slow link"
p_migrating() {
  create pair-live "$LAB_HOST"
  slow 200kbit
  migrate pair-live --live-migration --block-migration
  wait_for 60 "the memory of pair-live to move" memory_moves "$(uuid_of pair-live)"
}

pair migrated-live "a completed live migration"
p_migrated_live() {
  create pair-live "$LAB_HOST"
  migrate pair-live --live-migration --block-migration
  wait_is pair-live active "$SECOND"
  wait_for 60 "the first host to release pair-live" moved_away pair-live
}

pair evacuated "evacuated from a host with a dead nova-compute: the guest there still runs"
p_evacuated() {
  create pair-evac "$SECOND"
  second compute stop
  forced down
  evacuate pair-evac
}

pair split-brain "evacuated while its guest was off, then virsh start of the old copy, as by libvirt-guests at boot"
p_split_brain() {
  local u
  create pair-split "$SECOND"
  u=$(uuid_of pair-split)
  second compute stop
  second_virsh -q destroy "$u"
  forced down
  evacuate pair-split
  second_virsh -q start "$u"
}

pair evacuation-armed "evacuated, then migrated back to a nova-compute that was never restarted: its next start would delete the guest"
p_evacuation_armed() {
  local u
  create pair-armed "$SECOND"
  u=$(uuid_of pair-armed)
  second compute freeze
  second_virsh -q destroy "$u"
  second_virsh -q undefine "$u"
  second run rm -rf "/var/lib/nova/instances/$u"
  forced down
  evacuate pair-armed
  # the API refuses that while such a record exists: bug 1922053
  sql "update nova.services set forced_down = 0 where host = '$SECOND' and \`binary\` = 'nova-compute' and deleted = 0"
  second compute thaw
  wait_for 60 "nova-compute on $SECOND" second_beats
  migrate pair-armed --live-migration --block-migration
  wait_is pair-armed active "$SECOND"
}

pair wrong-host "the row names the first host, but the guest is on the second"
p_wrong_host() {
  local u
  create pair-wrong "$SECOND"
  u=$(uuid_of pair-wrong)
  echo "update nova.instances set host = '$SECOND', node = '$SECOND' where uuid = '$u'" >"$S/undo.sql"
  sql "update nova.instances set host = '$LAB_HOST', node = '$(sql "select hypervisor_hostname from nova.compute_nodes where host = '$LAB_HOST' and deleted = 0")' where uuid = '$u'"
}

pair left-behind "live migrated, but its domain (shut off) and folder are still on the first host"
p_left_behind() {
  local u
  create pair-left "$LAB_HOST"
  u=$(uuid_of pair-left)
  virsh dumpxml --inactive --security-info "$u" >"$S/left.xml"
  cp -a "$INSTANCES/$u" "$S/left"
  migrate pair-left --live-migration --block-migration
  wait_is pair-left active "$SECOND"
  cp -a "$S/left" "$INSTANCES/$u"
  virsh -q define "$S/left.xml"
}

second_beats() {
  [ "$(sql "select count(*) from nova.services where host = '$SECOND' and \`binary\` = 'nova-compute' and deleted = 0
            and updated_at > utc_timestamp() - interval 15 second")" = 1 ]
}
down_records() { # evacuations that the second host's nova-compute has not processed
  [ "$(sql "select count(*) from nova.migrations where source_compute = '$SECOND' and migration_type = 'evacuation' and status in ('accepted', 'pre-migrating', 'done')")" -gt 0 ]
}
all_processed() { ! down_records; }
is_forced_down() { [ "$(sql "select forced_down from nova.services where host = '$SECOND' and \`binary\` = 'nova-compute' and deleted = 0")" = 1 ]; }
all_moved() {
  local name
  for name in $(pairs_left); do moved_away "$name" || return 1; done
}
pairs_left() { sql "select display_name from nova.instances where deleted = 0 and display_name like 'pair-%'"; }
none_left() { [ -z "$(pairs_left)" ]; }
idle_pairs() { [ -z "$(sql "select uuid from nova.instances where deleted = 0 and display_name like 'pair-%' and task_state is not null")" ]; }

undo() {
  local u
  tc qdisc del dev hl-second root 2>/dev/null || true
  if [ -e "$S/undo.sql" ]; then sql "$(cat "$S/undo.sql")"; fi
  second compute thaw 2>/dev/null || true
  wait_for 120 "the tasks of the pair-… guests to end" idle_pairs
  # the guest is idle before its old host is; deleting it then leaves an orphaned allocation
  wait_for 60 "the live migrations of the pair-… guests to end" all_moved
  if down_records; then # nova-compute removes evacuated guests at its start, and records that
    second compute stop
    second compute start
    wait_for 120 "the second nova-compute to process the evacuations" all_processed
  fi
  second compute start
  if is_forced_down; then forced up; fi
  for u in $(sql "select uuid from nova.instances where deleted = 0 and display_name like 'pair-%'"); do osc server delete "$u"; done
  wait_for 120 "the pair-… guests to be deleted" none_left
  [ -e "$S/uuids" ] || return 0
  while read -r u; do
    for virsh in virsh second_virsh; do
      $virsh destroy "$u" || true
      $virsh undefine "$u" || true
    done >/dev/null 2>&1
    rm -rf "$INSTANCES/${u:?}"* "$LAB_STATE/second/root$INSTANCES/${u:?}"*
  done <"$S/uuids"
  rm -rf "$S"
  lab_python purge.py 'pair-%'
}

case $1 in
  --list) for n in "${P_NAMES[@]}"; do printf '%-18s %s\n' "$n" "${P_WHAT[$n]}"; done ;;
  make)
    need_root
    [ -n "${P_WHAT[${2:-none}]:-}" ] || die "no situation is called '${2:-}': lab/pairs.sh --list lists them"
    [ -d "$LAB_STATE/second" ] || die "there is no second host: run lab/second-host.sh up"
    mkdir -p "$S"
    say "$2: ${P_WHAT[$2]}"
    "p_${2//-/_}"
    ;;
  undo)
    need_root
    undo
    ;;
  *) die "unknown command '$1' (see --help)" ;;
esac
