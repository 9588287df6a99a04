# Faults: servers in error, guests that are off while nova ignores it, tasks and moves that are over. Sourced by
# faults.sh, which defines the functions used here. Where a fix can follow the advice of the finding, it does.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034

stop_and_start() { # the way back from ERROR: `stop` is allowed there, `start` is not
  osc server stop "$u"
  until_ok 60 idle_in stopped || die "$I did not become stopped: it is $(vm_state)"
  osc server start "$u"
  until_ok 120 idle_in active || die "$I did not start: it is $(vm_state)"
  until_ok 30 running
}
set_error() { osc server set --state error "$u"; }
in_error() { [ "$(vm_state)" = error ]; }
no_domain() { ! virsh domstate "$u" >/dev/null 2>&1; }

fault error-and-off vm-snap "the server is in error, and its domain was destroyed" "copies the power state, and nothing else: the sync ignores ERROR"
b_error_and_off() { set_error; virsh -q destroy "$u"; sleep 3; }
c_error_and_off() { in_error && ! running; }
f_error_and_off() { stop_and_start; }

fault error-no-domain vm-tenant "the server is in error, and its domain was destroyed and undefined" "nothing"
b_error_no_domain() { set_error; virsh -q destroy "$u"; virsh -q undefine "$u"; }
c_error_no_domain() { in_error && no_domain; }
f_error_no_domain() { stop_and_start; }

fault error-paused vm-duo "the server is in error, and its guest was paused on the host" "copies the power state, and nothing else"
b_error_paused() { set_error; virsh -q suspend "$u"; }
c_error_paused() { in_error && [ "$(domstate "$u")" = paused ]; }
f_error_paused() { virsh -q resume "$u"; osc server set --state active "$u"; until_ok 30 running; }

fault error-reboot-failed vm-data "a hard reboot failed because the file of the server's volume was away: nova's own fault and failed action" "nothing: the server stays in error, and its guest off"
b_error_reboot_failed() {
  vol_of | save vol
  mv "/srv/hoodlab-nfs/volume-$(saved vol)" /srv/hoodlab-nfs/lab-away-2
  osc server reboot --hard "$u"
  until_ok 90 idle_in error || true
  mv /srv/hoodlab-nfs/lab-away-2 "/srv/hoodlab-nfs/volume-$(saved vol)"
}
c_error_reboot_failed() { in_error && ! running; }
f_error_reboot_failed() { stop_and_start; }

fault rescued-killed vm-rescued "kill -9 of the qemu of a server in rescue" "copies the power state: RESCUE is ignored"
b_rescued_killed() { kill -9 "$(qpid)"; sleep 3; }
c_rescued_killed() { [ "$(vm_state)" = rescued ] && ! running; }
f_rescued_killed() { virsh -q start "$u"; until_ok 30 running; }

fault resized-destroyed vm-verify "virsh destroy of a server that waits for the confirmation of its resize" "copies the power state: VERIFY_RESIZE is ignored"
b_resized_destroyed() { virsh -q destroy "$u"; sleep 3; }
c_resized_destroyed() { [ "$(vm_state)" = resized ] && ! running; }
f_resized_destroyed() { virsh -q start "$u"; until_ok 30 running; }

fault guests-killed - "kill -9 of the qemu of every running guest at once" "stops the servers in its records one after the other (none of them, frozen)"
qemus() { pgrep -u libvirt-qemu -f -- '-uuid .*-smbios' || pgrep -f 'qemu-system.* -uuid .* -smbios'; }
b_guests_killed() {
  virsh list --state-running --name | grep . | save running
  virsh list --state-paused --name | grep . | save paused
  qemus | xargs kill -9
  sleep 4
}
c_guests_killed() { [ -s "$S/running" ] && [ -z "$(virsh list --name | grep .)" ]; }
f_guests_killed() {
  local g
  while read -r g; do virsh -q start "$g"; done <"$S/running"
  while read -r g; do virsh -q start "$g" --paused; done <"$S/paused"
  sleep 3
}

live_migration() { # STATUS AGE: a finished live migration away from here
  row "insert into nova.migrations (created_at,updated_at,deleted,uuid,source_compute,dest_compute,source_node,dest_node,status,instance_uuid,migration_type,hidden,old_instance_type_id,new_instance_type_id)
    values (utc_timestamp()-interval $2,utc_timestamp()-interval $2,0,uuid(),'$LAB_HOST','vm-old','$(hypervisor)','vm-old','$1','$u','live-migration',0,1,1)"
}
hypervisor() { row "select hypervisor_hostname from nova.compute_nodes where deleted=0 and host='$LAB_HOST' limit 1"; }
no_migration() { row "delete from nova.migrations where instance_uuid='$u' and dest_compute='vm-old' and migration_type='live-migration'"; }
set_task() { # TASK AGE
  row "select quote(updated_at) from nova.instances where uuid='$u'" | save updated_at
  row "update nova.instances set task_state='$1', updated_at=utc_timestamp()-interval $2 where uuid='$u'"
}
clear_task() { row "update nova.instances set task_state=NULL, updated_at=$(saved updated_at) where uuid='$u'"; }
task_is() { [ "$(row "select ifnull(task_state,'') from nova.instances where uuid='$u'")" = "$1" ]; }

fault record-behind vm-plain "a live migration away from here is completed, the guest is gone, but nova still has the server here, with its task set" "nothing: the power sync skips a server with a task"
b_record_behind() { save_definition; set_task migrating '40 minute'; live_migration completed '40 minute'; virsh -q destroy "$u"; virsh -q undefine "$u"; }
c_record_behind() { task_is migrating && no_domain; }
f_record_behind() { no_migration; clear_task; virsh -q define "$S/inactive.xml"; back_to_active; }

fault migration-failed-task vm-config "a live migration failed 40 minutes ago, and left its task set; the guest runs" "nothing; a restart of nova-compute clears the task"
b_migration_failed_task() { set_task migrating '40 minute'; live_migration error '40 minute'; }
c_migration_failed_task() { task_is migrating && running; }
f_migration_failed_task() { osc server set --state active "$u"; no_migration; ! task_is migrating; }

fault action-over-task vm-snap "a suspend ended with an error 40 minutes ago, and left its task set; the guest runs" "nothing"
b_action_over_task() {
  set_task suspending '41 minute'
  row "insert into nova.instance_actions (created_at,updated_at,action,instance_uuid,request_id,user_id,project_id,start_time,message,deleted)
    select utc_timestamp()-interval 41 minute,utc_timestamp()-interval 40 minute,'suspend','$u',concat('req-',uuid()),user_id,project_id,utc_timestamp()-interval 41 minute,'Error',0 from nova.instances where uuid='$u'"
  row "select max(id) from nova.instance_actions where instance_uuid='$u'" | save action
  row "insert into nova.instance_actions_events (created_at,event,action_id,start_time,finish_time,result,host,deleted)
    values (utc_timestamp()-interval 41 minute,'compute_suspend_instance',$(saved action),utc_timestamp()-interval 41 minute,utc_timestamp()-interval 40 minute,'Error','$LAB_HOST',0)"
}
c_action_over_task() { task_is suspending && running; }
f_action_over_task() {
  osc server set --state active "$u"
  row "delete from nova.instance_actions_events where action_id=$(saved action)"
  row "delete from nova.instance_actions where id=$(saved action)"
}

fault deletion-half-done vm-tenant "a deletion stopped half way an hour ago: domain, network cache and task say deleting, the row is alive" "nothing; a restart of nova-compute completes the deletion"
b_deletion_half_done() {
  save_definition
  dump_rows nova instance_info_caches "instance_uuid='$u'" | save cache.sql
  set_task deleting '1 hour'
  virsh -q destroy "$u"; virsh -q undefine "$u"
  mv "$(idir)" "$INSTANCES/.lab-away-$u"
  row "update nova.instance_info_caches set network_info='[]' where instance_uuid='$u'"
}
c_deletion_half_done() { task_is deleting && no_domain; }
f_deletion_half_done() {
  mv "$INSTANCES/.lab-away-$u" "$(idir)"
  "${MYSQL[@]}" nova <"$S/cache.sql"
  virsh -q define "$S/inactive.xml"
  clear_task
  back_to_active
}

other_rp() { row "select uuid from placement.resource_providers where name='vm-old'"; }
fault evacuated-allocation vm-config "the server was evacuated from a host that is dead since, which still holds an allocation for it" "nothing until nova-compute on the old host starts"
b_evacuated_allocation() {
  row "insert into nova.migrations (created_at,updated_at,deleted,uuid,source_compute,dest_compute,source_node,dest_node,status,instance_uuid,migration_type,hidden,old_instance_type_id,new_instance_type_id)
    values (utc_timestamp()-interval 3 day,utc_timestamp()-interval 3 day,0,uuid(),'vm-old','$LAB_HOST','vm-old','$(hypervisor)','done','$u','evacuation',0,1,1)"
  osc resource provider create vm-old -f value >/dev/null
  osc --os-placement-api-version 1.28 resource provider inventory set --resource VCPU=8 --resource MEMORY_MB=4096 --resource DISK_GB=100 "$(other_rp)" -f value >/dev/null
  osc --os-placement-api-version 1.28 resource provider allocation set --allocation "rp=$(rp_id),VCPU=1,MEMORY_MB=64,DISK_GB=3" --allocation "rp=$(other_rp),VCPU=1,MEMORY_MB=64,DISK_GB=3" \
    --project-id "$(row "select project_id from nova.instances where uuid='$u'")" --user-id "$(row "select user_id from nova.instances where uuid='$u'")" "$u" -f value >/dev/null
}
c_evacuated_allocation() { [ -n "$(other_rp)" ]; }
f_evacuated_allocation() {
  # the advice removes the allocation
  osc --os-placement-api-version 1.28 resource provider allocation unset --provider "$(other_rp)" "$u" -f value >/dev/null || true
  osc resource provider delete "$(other_rp)"
  row "delete from nova.migrations where instance_uuid='$u' and source_compute='vm-old' and migration_type='evacuation'"
}

fault rescue-xml-gone vm-rescued "unrescue.xml is missing in the folder of a server in rescue" "nothing; unrescue fails, and leaves the server in error"
b_rescue_xml_gone() { mv "$INSTANCES/$u/unrescue.xml" "$S/"; }
c_rescue_xml_gone() { [ "$(vm_state)" = rescued ] && [ ! -e "$INSTANCES/$u/unrescue.xml" ]; }
f_rescue_xml_gone() { mv "$S/unrescue.xml" "$INSTANCES/$u/"; }

fault config-drive-ejected vm-config "virsh change-media --eject of the config drive of a running guest" "nothing; the next start through nova brings it back"
config_target() { virsh domblklist "$u" "$@" | awk '/disk\.config$/ { print $1 }'; }
b_config_drive_ejected() { virsh -q change-media "$u" "$(config_target)" --eject --live --force; }
c_config_drive_ejected() { [ -z "$(config_target)" ] && [ -n "$(config_target --inactive)" ]; }
f_config_drive_ejected() { virsh -q change-media "$u" "$(config_target --inactive)" "$INSTANCES/$u/disk.config" --insert --live; }

fault resize-reset vm-verify "server set --state active of a server that waits for the confirmation of its resize" "with resize_confirm_window it sets the migration to error; confirm and revert are refused"
b_resize_reset() { osc server set --state active "$u"; }
c_resize_reset() { [ "$(vm_state)" = active ]; }
f_resize_reset() { row "update nova.instances set vm_state='resized' where uuid='$u'"; }

fault shelve-reset vm-shelved "server set --state active of a server that is shelved and offloaded" "nothing; unshelve is refused"
b_shelve_reset() { osc server set --state active "$u"; }
c_shelve_reset() { [ "$(vm_state)" = active ]; }
f_shelve_reset() { row "update nova.instances set vm_state='shelved_offloaded' where uuid='$u'"; }
