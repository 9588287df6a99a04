# Faults: nova's databases. Sourced by faults.sh, which defines the functions used here.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034

fault db-soft-deleted vm-snap "the DB row is marked deleted while the domain runs" "reaps the domain at the next running_deleted_instance_poll_interval (30 min)!"
b_db_soft_deleted() { row "update nova.instances set deleted=id, deleted_at=utc_timestamp(), terminated_at=utc_timestamp(), vm_state='deleted', power_state=0 where uuid='$u'"; }
c_db_soft_deleted() { [ "$(row "select deleted<>0 from nova.instances where uuid='$u'")" = 1 ] && running; }
f_db_soft_deleted() { row "update nova.instances set deleted=0, deleted_at=NULL, terminated_at=NULL, vm_state='active', power_state=1 where uuid='$u'"; }

fault db-row-gone vm-tenant "the instances row is deleted, everything else stays" "API 404/500; the domain keeps running"
b_db_row_gone() { dump_rows nova instances "uuid='$u'" | save row.sql; row "set foreign_key_checks=0; delete from nova.instances where uuid='$u'"; }
c_db_row_gone() { [ "$(row "select count(*) from nova.instances where uuid='$u'")" = 0 ]; }
f_db_row_gone() { (echo "set foreign_key_checks=0;"; saved row.sql) | "${MYSQL[@]}" nova; }

fault db-power-state vm-config "power_state=4 (shut down) in the DB while it runs" "the power sync corrects it (10 min)"
b_db_power_state() { row "update nova.instances set power_state=4 where uuid='$u'"; }
c_db_power_state() { [ "$(row "select power_state from nova.instances where uuid='$u'")" = 4 ] && running; }
f_db_power_state() { row "update nova.instances set power_state=1 where uuid='$u'"; }

fault db-vm-state-stopped vm-config "vm_state=stopped in the DB while it runs" "the power sync (10 min) then really stops the guest!"
b_db_vm_state_stopped() { row "update nova.instances set vm_state='stopped', power_state=4 where uuid='$u'"; }
c_db_vm_state_stopped() { [ "$(vm_state)" = stopped ] && running; }
f_db_vm_state_stopped() { row "update nova.instances set vm_state='active', power_state=1 where uuid='$u'"; }

fault db-vm-state-error vm-data "vm_state=error while it runs" "nothing"
b_db_vm_state_error() { osc server set --state error "$u"; }
c_db_vm_state_error() { [ "$(vm_state)" = error ]; }
f_db_vm_state_error() { osc server set --state active "$u"; }

fault db-task-state vm-paused "a task_state (powering-off) without a worker, left over six hours ago" "nothing (the power sync skips it); a restart of nova-compute may act on it"
b_db_task_state() {
  row "select quote(updated_at) from nova.instances where uuid='$u'" | save updated_at
  row "update nova.instances set task_state='powering-off', updated_at=utc_timestamp()-interval 6 hour where uuid='$u'"
}
c_db_task_state() { [ "$(row "select ifnull(task_state,'') from nova.instances where uuid='$u'")" = powering-off ]; }
f_db_task_state() { row "update nova.instances set task_state=NULL, updated_at=$(saved updated_at) where uuid='$u'"; }

fault db-host vm-config "instances.host/node name a host that no longer exists" "this compute sees an unknown domain; API calls go to a dead queue"
b_db_host() { row "update nova.instances set host='vm-old', node='vm-old.example' where uuid='$u'"; }
c_db_host() { [ "$(row "select host from nova.instances where uuid='$u'")" = vm-old ]; }
f_db_host() { row "update nova.instances set host='$LAB_HOST', node='$(row "select hypervisor_hostname from nova.compute_nodes where deleted=0 and host='$LAB_HOST' limit 1")' where uuid='$u'"; }

fault db-flavor-drift vm-config "instances.memory_mb/vcpus differ from the domain (the embedded flavor does not)" "nothing"
b_db_flavor_drift() { row "update nova.instances set memory_mb=4096, vcpus=4 where uuid='$u'"; }
c_db_flavor_drift() { [ "$(row "select memory_mb from nova.instances where uuid='$u'")" = 4096 ]; }
f_db_flavor_drift() { row "update nova.instances set memory_mb=64, vcpus=1 where uuid='$u'"; }

fault flavor-remade vm-duo "the flavor with that name now has 256 MiB, the guest was created with 128" "nothing: an instance keeps its own copy"
b_flavor_remade() { row "update nova_api.flavors set memory_mb=256 where name='$(flavor_of)'"; }
flavor_of() { row "select json_value(flavor, '\$.cur.\"nova_object.data\".name') from nova.instance_extra where instance_uuid='$u'"; }
c_flavor_remade() { [ "$(row "select memory_mb from nova_api.flavors where name='$(flavor_of)'")" = 256 ]; }
f_flavor_remade() { row "update nova_api.flavors set memory_mb=128 where name='$(flavor_of)'"; }

fault db-info-cache vm-config "instance_info_caches.network_info is empty" "repaired within heal_instance_info_cache_interval (one or a few minutes); stays with --freeze"
b_db_info_cache() { dump_rows nova instance_info_caches "instance_uuid='$u'" | save row.sql; row "update nova.instance_info_caches set network_info='[]' where instance_uuid='$u'"; }
c_db_info_cache() { [ "$(row "select network_info from nova.instance_info_caches where instance_uuid='$u'")" = '[]' ]; }
f_db_info_cache() { "${MYSQL[@]}" nova <"$S/row.sql"; }

fault db-bdm-missing vm-data "the block_device_mapping row of the attached volume is soft-deleted: the domain has a disk that nova does not know" "a hard reboot would drop the disk"
b_db_bdm_missing() { row "select id from nova.block_device_mapping where instance_uuid='$u' and deleted=0 and volume_id is not null limit 1" | save id; row "update nova.block_device_mapping set deleted=id, deleted_at=utc_timestamp() where id=$(saved id)"; }
c_db_bdm_missing() { [ "$(row "select deleted<>0 from nova.block_device_mapping where id=$(saved id)")" = 1 ]; }
f_db_bdm_missing() { row "update nova.block_device_mapping set deleted=0, deleted_at=NULL where id=$(saved id)"; }

fault db-bdm-stale vm-plain "a block_device_mapping row for a volume that does not exist" "a hard reboot fails on it"
b_db_bdm_stale() {
  local v; v=$(new_uuid); echo "$v" | save vol
  row "insert into nova.block_device_mapping (created_at,deleted,uuid,instance_uuid,source_type,destination_type,device_type,boot_index,device_name,volume_id,volume_size,no_device,delete_on_termination,attachment_id,connection_info)
       values (utc_timestamp(),0,uuid(),'$u','volume','volume','disk',NULL,'/dev/vdf','$v',1,0,0,uuid(),'{\"driver_volume_type\": \"nfs\", \"serial\": \"$v\", \"data\": {\"export\": \"127.0.0.1:/srv/hoodlab-nfs\", \"name\": \"volume-$v\", \"format\": \"raw\"}}')"
}
c_db_bdm_stale() { [ "$(row "select count(*) from nova.block_device_mapping where volume_id='$(saved vol)' and deleted=0")" = 1 ]; }
f_db_bdm_stale() { row "delete from nova.block_device_mapping where volume_id='$(saved vol)'"; }

fault db-request-spec vm-bfv "nova_api.request_specs row is missing: migrate/evacuate/unshelve fail" "nothing"
b_db_request_spec() { dump_rows nova_api request_specs "instance_uuid='$u'" | save row.sql; row "delete from nova_api.request_specs where instance_uuid='$u'"; }
c_db_request_spec() { [ "$(row "select count(*) from nova_api.request_specs where instance_uuid='$u'")" = 0 ]; }
f_db_request_spec() { "${MYSQL[@]}" nova_api <"$S/row.sql"; }

fault db-migration-stuck vm-bfv "a migrations row that stays 'running' forever" "nothing"
b_db_migration_stuck() { row "insert into nova.migrations (created_at,updated_at,deleted,uuid,source_compute,dest_compute,source_node,dest_node,status,instance_uuid,migration_type,hidden,old_instance_type_id,new_instance_type_id)
  values (utc_timestamp()-interval 5 hour,utc_timestamp()-interval 5 hour,0,uuid(),'vm-old','$LAB_HOST','vm-old','$LAB_HOST','running','$u','live-migration',0,1,1)"; }
c_db_migration_stuck() { [ "$(row "select count(*) from nova.migrations where instance_uuid='$u' and status='running'")" = 1 ]; }
f_db_migration_stuck() { row "delete from nova.migrations where instance_uuid='$u' and status='running' and source_compute='vm-old'"; }

fault db-resize-record vm-verify "the migrations row of a resize that waits to be confirmed has status error" "nothing; confirm and revert are refused"
resize_row() { row "select max(id) from nova.migrations where instance_uuid='$u' and migration_type='resize' and deleted=0"; }
b_db_resize_record() { resize_row | save id; row "update nova.migrations set status='error' where id=$(saved id)"; }
c_db_resize_record() { [ "$(row "select status from nova.migrations where id=$(saved id)")" = error ]; }
f_db_resize_record() { row "update nova.migrations set status='finished' where id=$(saved id)"; }

mapping() { row "select ifnull($1, 'NULL') from nova_api.instance_mappings where instance_uuid='$u'"; }
fault db-mapping-missing vm-data "the nova_api.instance_mappings row is gone: lists show the server, every command for it answers 404" "nothing"
b_db_mapping_missing() { dump_rows nova_api instance_mappings "instance_uuid='$u'" | save row.sql; row "delete from nova_api.instance_mappings where instance_uuid='$u'"; }
c_db_mapping_missing() { [ -z "$(mapping id)" ]; }
f_db_mapping_missing() { "${MYSQL[@]}" nova_api <"$S/row.sql"; }

fault db-mapping-no-cell vm-config "the server's mapping names no cell (cell_id NULL), as after an aborted build" "nothing; every command for it answers 404"
b_db_mapping_no_cell() { mapping cell_id | save cell; row "update nova_api.instance_mappings set cell_id=NULL where instance_uuid='$u'"; }
c_db_mapping_no_cell() { [ "$(mapping cell_id)" = NULL ]; }
f_db_mapping_no_cell() { row "update nova_api.instance_mappings set cell_id=$(saved cell) where instance_uuid='$u'"; }

fault db-mapping-queued vm-tenant "queued_for_delete is set in the mapping of a live server" "nothing; it does not count toward its owner's quota, and is missing from lists while its cell is down"
b_db_mapping_queued() { row "update nova_api.instance_mappings set queued_for_delete=1 where instance_uuid='$u'"; }
c_db_mapping_queued() { [ "$(mapping queued_for_delete)" = 1 ]; }
f_db_mapping_queued() { row "update nova_api.instance_mappings set queued_for_delete=0 where instance_uuid='$u'"; }

fault db-two-cells vm-snap "a second live row of the server in cell0's database, with the same host" "nothing; lists may show either row"
b_db_two_cells() {
  row "create temporary table nova_cell0.lab_copy as select * from nova.instances where uuid='$u';
       update nova_cell0.lab_copy set id = (select ifnull(max(id), 0) + 1 from nova_cell0.instances);
       insert into nova_cell0.instances select * from nova_cell0.lab_copy"
}
c_db_two_cells() { [ "$(row "select count(*) from nova_cell0.instances where uuid='$u' and deleted=0")" = 1 ]; }
f_db_two_cells() { row "delete from nova_cell0.instances where uuid='$u'"; }

fault db-vm-state-rescued vm-plain "vm_state=rescued in the DB of a server that runs from its own disk" "nothing; only unrescue is allowed, which fails"
b_db_vm_state_rescued() { row "update nova.instances set vm_state='rescued' where uuid='$u'"; }
c_db_vm_state_rescued() { [ "$(vm_state)" = rescued ]; }
f_db_vm_state_rescued() { row "update nova.instances set vm_state='active' where uuid='$u'"; }

fault db-extra-gone vm-duo "the server's row in instance_extra (its flavor) is deleted" "the API answers 500 for the server, and for every list that contains it"
b_db_extra_gone() { dump_rows nova instance_extra "instance_uuid='$u'" | save row.sql; row "delete from nova.instance_extra where instance_uuid='$u'"; }
c_db_extra_gone() { [ "$(row "select count(*) from nova.instance_extra where instance_uuid='$u'")" = 0 ]; }
f_db_extra_gone() { "${MYSQL[@]}" nova <"$S/row.sql"; }

fault db-node vm-config "instances.node names a node that does not exist, as after a change of the host's full name" "nothing; its resources are not counted, and it can't be resized or migrated"
b_db_node() { row "select node from nova.instances where uuid='$u'" | save node; row "update nova.instances set node='vm.old.example' where uuid='$u'"; }
c_db_node() { [ "$(row "select node from nova.instances where uuid='$u'")" = vm.old.example ]; }
f_db_node() { row "update nova.instances set node='$(saved node)' where uuid='$u'"; }

fault db-hidden vm-snap "the server's only row is hidden, as after a move into another cell that broke off" "the API and nova-compute do not list it"
b_db_hidden() { row "update nova.instances set hidden=1 where uuid='$u'"; }
c_db_hidden() { [ "$(row "select hidden from nova.instances where uuid='$u'")" = 1 ]; }
f_db_hidden() { row "update nova.instances set hidden=0 where uuid='$u'"; }

fault db-mapping-owner vm-duo "the server's mapping names another project" "nothing; its owner's list may miss it, and another quota counts it"
b_db_mapping_owner() { mapping project_id | save project; row "update nova_api.instance_mappings set project_id='$(new_uuid | tr -d -)' where instance_uuid='$u'"; }
c_db_mapping_owner() { [ "$(mapping project_id)" != "$(saved project)" ]; }
f_db_mapping_owner() { row "update nova_api.instance_mappings set project_id='$(saved project)' where instance_uuid='$u'"; }

fault db-launched-on vm-duo "launched_on names a host that the server never was on" "nothing"
b_db_launched_on() { row "update nova.instances set launched_on='vm-old' where uuid='$u'"; }
c_db_launched_on() { [ "$(row "select launched_on from nova.instances where uuid='$u'")" = vm-old ]; }
f_db_launched_on() { row "update nova.instances set launched_on='$LAB_HOST' where uuid='$u'"; }

fault db-request-specs-swapped vm-duo "the request specs of this server and of vm-plain are exchanged" "nothing; the next move uses the other server's flavor and image"
swap_specs() {
  row "create temporary table nova_api.lab_specs as select instance_uuid, spec from nova_api.request_specs where instance_uuid in ('$u', '$1');
       update nova_api.request_specs r join nova_api.lab_specs s on s.instance_uuid = if(r.instance_uuid = '$u', '$1', '$u') set r.spec = s.spec where r.instance_uuid in ('$u', '$1')"
}
b_db_request_specs_swapped() { uuid_of vm-plain | save other; swap_specs "$(saved other)"; }
c_db_request_specs_swapped() { [ "$(row "select count(*) from nova_api.request_specs where instance_uuid='$u' and instr(spec, '$(saved other)') > 0")" = 1 ]; }
f_db_request_specs_swapped() { swap_specs "$(saved other)"; }

fault db-image-properties vm-config "the rows with the image's properties (instance_system_metadata) are deleted" "nothing; the next start defines the guest with default hardware"
b_db_image_properties() { dump_rows nova instance_system_metadata "instance_uuid='$u'" | save rows.sql; row "delete from nova.instance_system_metadata where instance_uuid='$u' and \`key\` like 'image\\\\_%'"; }
c_db_image_properties() { [ "$(row "select count(*) from nova.instance_system_metadata where instance_uuid='$u' and \`key\` like 'image\\\\_%'")" = 0 ]; }
f_db_image_properties() { "${MYSQL[@]}" nova <"$S/rows.sql"; }

fault db-migration-of-nobody - "a migrations row of an instance that does not exist" "nothing"
b_db_migration_of_nobody() {
  new_uuid | save nobody
  row "set foreign_key_checks=0; insert into nova.migrations (created_at,updated_at,deleted,uuid,source_compute,dest_compute,source_node,dest_node,status,instance_uuid,migration_type,hidden,old_instance_type_id,new_instance_type_id)
  values (utc_timestamp(),utc_timestamp(),0,uuid(),'$LAB_HOST','vm-new','$LAB_HOST','vm-new','running','$(saved nobody)','live-migration',0,1,1)"
}
c_db_migration_of_nobody() { [ "$(row "select count(*) from nova.migrations where instance_uuid='$(saved nobody)'")" = 1 ]; }
f_db_migration_of_nobody() { row "delete from nova.migrations where instance_uuid='$(saved nobody)'"; }

fault db-mapping-building vm-config "the server's mapping names no cell and its build request is left, since a day" "nothing; the API shows it as building, and every command for it answers 409"
b_db_mapping_building() {
  mapping cell_id | save cell
  mapping created_at | save created
  row "update nova_api.instance_mappings set cell_id=NULL, created_at=utc_timestamp()-interval 1 day where instance_uuid='$u';
       insert into nova_api.build_requests (created_at, project_id, instance_uuid) select utc_timestamp()-interval 1 day, project_id, instance_uuid from nova_api.instance_mappings where instance_uuid='$u'"
}
c_db_mapping_building() { [ "$(mapping cell_id)" = NULL ] && [ "$(row "select count(*) from nova_api.build_requests where instance_uuid='$u'")" = 1 ]; }
f_db_mapping_building() {
  row "update nova_api.instance_mappings set cell_id=$(saved cell), created_at='$(saved created)' where instance_uuid='$u';
       delete from nova_api.build_requests where instance_uuid='$u'"
}

fault group-broken vm-plain "this server and vm-data are members of an anti-affinity group, on one host" "nothing"
b_group_broken() {
  osc --os-compute-api-version 2.64 server group create --policy anti-affinity lab-apart -f value -c id | save group
  row "insert into nova_api.instance_group_member (created_at, instance_uuid, group_id)
       select utc_timestamp(), i.uuid, g.id from nova.instances i, nova_api.instance_groups g where i.uuid in ('$u', '$(uuid_of vm-data)') and g.uuid='$(saved group)'"
}
c_group_broken() { [ "$(row "select count(*) from nova_api.instance_group_member m join nova_api.instance_groups g on g.id=m.group_id where g.uuid='$(saved group)'")" = 2 ]; }
f_group_broken() { osc server group delete "$(saved group)"; }

fault zone-moved - "the host was put into an aggregate with another availability zone while it has servers" "nothing; servers keep their zone, and can't be moved"
b_zone_moved() {
  osc aggregate create --zone rack-2 lab-rack-2 -f value -c id | save aggregate
  row "insert into nova_api.aggregate_hosts (created_at, host, aggregate_id) values (utc_timestamp(), '$LAB_HOST', $(saved aggregate))"
}
c_zone_moved() { [ "$(row "select count(*) from nova_api.aggregate_hosts where aggregate_id=$(saved aggregate)")" = 1 ]; }
f_zone_moved() { row "delete from nova_api.aggregate_hosts where aggregate_id=$(saved aggregate)"; osc aggregate delete "$(saved aggregate)"; }

fault request-forced vm-resized "the request spec demands a host that does not exist" "nothing: nova drops the demand on a move"
b_request_forced() {
  dump_rows nova_api request_specs "instance_uuid='$u'" | save spec.sql
  row "update nova_api.request_specs set spec = json_set(spec, '\$.\"nova_object.data\".force_hosts', json_array('compute-old')) where instance_uuid = '$u'"
}
c_request_forced() { row "select spec from nova_api.request_specs where instance_uuid = '$u'" | has compute-old; }
f_request_forced() { "${MYSQL[@]}" nova_api <"$S/spec.sql"; }

fault soft-deleted-forever vm-stopped "the server was soft-deleted 40 days ago, and nova-compute has no reclaim_instance_interval" "nothing: it keeps its disk, port and allocation"
b_soft_deleted_forever() {
  row "select concat('vm_state=', quote(vm_state), ', deleted_at=', quote(deleted_at), ', updated_at=', quote(updated_at)) from nova.instances where uuid='$u'" | save before
  row "update nova.instances set vm_state='soft-delete', deleted_at=utc_timestamp()-interval 40 day, updated_at=utc_timestamp()-interval 40 day where uuid='$u'"
}
c_soft_deleted_forever() { [ "$(vm_state)" = soft-delete ]; }
f_soft_deleted_forever() { row "update nova.instances set $(saved before) where uuid='$u'"; }

fault old-compute-record - "nova has the record of a nova-compute of Victoria, whose host was scrapped years ago" "nova's services don't start again (TooOldComputeService)"
b_old_compute_record() { row "insert into nova.services (created_at,updated_at,host,\`binary\`,topic,report_count,disabled,deleted,last_seen_up,forced_down,version,uuid) values ('2021-03-01 10:00:00','2023-06-01 10:00:00','vm-old','nova-compute','compute',918233,0,0,'2023-06-01 10:00:00',0,52,uuid())"; }
c_old_compute_record() { [ "$(row "select count(*) from nova.services where host='vm-old' and deleted=0")" = 1 ]; }
f_old_compute_record() { row "delete from nova.services where host='vm-old'"; }

fault compute-record-left - "nova has the record of a nova-compute of this release, whose host was scrapped years ago" "nothing: it is listed as down"
b_compute_record_left() { row "insert into nova.services (created_at,updated_at,host,\`binary\`,topic,report_count,disabled,deleted,last_seen_up,forced_down,version,uuid) select '2021-03-01 10:00:00','2023-06-01 10:00:00','vm-left','nova-compute','compute',918233,0,0,'2023-06-01 10:00:00',0,max(version),uuid() from nova.services where deleted=0"; }
c_compute_record_left() { [ "$(row "select count(*) from nova.services where host='vm-left' and deleted=0")" = 1 ]; }
f_compute_record_left() { row "delete from nova.services where host='vm-left'"; }

fault db-root-bdm-gone vm-plain "the only block_device_mapping row of a server, its boot disk, is marked as deleted" "nothing"
b_db_root_bdm_gone() { row "select id from nova.block_device_mapping where instance_uuid='$u' and deleted=0 and boot_index=0" | save id; row "update nova.block_device_mapping set deleted=id, deleted_at=utc_timestamp() where id=$(saved id)"; }
c_db_root_bdm_gone() { [ "$(row "select count(*) from nova.block_device_mapping where instance_uuid='$u' and deleted=0")" = 0 ]; }
f_db_root_bdm_gone() { row "update nova.block_device_mapping set deleted=0, deleted_at=NULL where id=$(saved id)"; }

fault db-config-drive vm-config "instances.config_drive is empty, although the guest has a config drive" "nothing; the next start comes without it"
b_db_config_drive() { row "update nova.instances set config_drive='' where uuid='$u'"; }
c_db_config_drive() { [ -z "$(row "select config_drive from nova.instances where uuid='$u'")" ]; }
f_db_config_drive() { row "update nova.instances set config_drive='True' where uuid='$u'"; }

fault db-shelve-image vm-shelved "nova's record of the image that a shelved server is restored from is deleted" "nothing; unshelve starts the server from its original image"
b_db_shelve_image() { dump_rows nova instance_system_metadata "instance_uuid='$u' and \`key\`='shelved_image_id'" | save rows.sql; row "delete from nova.instance_system_metadata where instance_uuid='$u' and \`key\`='shelved_image_id'"; }
shelve_images() { row "select count(*) from nova.instance_system_metadata where instance_uuid='$u' and \`key\`='shelved_image_id' and deleted=0"; }
c_db_shelve_image() { [ "$(shelve_images)" = 0 ]; }
f_db_shelve_image() { row "delete from nova.instance_system_metadata where instance_uuid='$u' and \`key\`='shelved_image_id'"; "${MYSQL[@]}" nova <"$S/rows.sql"; }

fault pci-device-left - "a PCI device is reserved for the deleted server vm-deleted" "nothing until a restart of nova-compute; no server gets the device"
b_pci_device_left() {
  row "insert into nova.pci_devices (created_at,updated_at,deleted,compute_node_id,address,vendor_id,product_id,dev_type,dev_id,label,status,extra_info,instance_uuid,request_id,uuid)
    select utc_timestamp(),utc_timestamp(),0,n.id,'0000:3b:00.1','8086','10fb','type-PCI','pci_0000_3b_00_1','label_8086_10fb','allocated','{}',i.uuid,uuid(),uuid()
    from nova.compute_nodes n, nova.instances i where n.host='$LAB_HOST' and n.deleted=0 and i.display_name='vm-deleted' and i.deleted<>0 limit 1"
}
c_pci_device_left() { [ "$(row "select count(*) from nova.pci_devices where address='0000:3b:00.1' and status='allocated' and deleted=0")" = 1 ]; }
f_pci_device_left() { row "delete from nova.pci_devices where address='0000:3b:00.1'"; }

fault db-image-ref vm-plain "instances.image_ref names another image than the request spec, the system metadata and the block device mapping" "nothing; the next move puts the wrong image below the disk"
b_db_image_ref() { row "select image_ref from nova.instances where uuid='$u'" | save image; row "update nova.instances set image_ref=(select image_ref from (select image_ref from nova.instances where display_name='vm-linux' and deleted=0) as other) where uuid='$u'"; }
c_db_image_ref() { [ "$(row "select image_ref from nova.instances where uuid='$u'")" != "$(saved image)" ]; }
f_db_image_ref() { row "update nova.instances set image_ref='$(saved image)' where uuid='$u'"; }

fault db-disable-terminate vm-tenant "disable_terminate is set in the row of a server" "nothing; each request to delete the server is ignored"
terminate_disabled() { row "select disable_terminate from nova.instances where uuid='$u'"; }
b_db_disable_terminate() { terminate_disabled | save before; row "update nova.instances set disable_terminate=1 where uuid='$u'"; }
c_db_disable_terminate() { [ "$(terminate_disabled)" = 1 ]; }
f_db_disable_terminate() { row "update nova.instances set disable_terminate=$(saved before) where uuid='$u'"; }

fault node-pinned-cpus - "the compute node's record has a CPU as pinned that no server has" "nothing until a restart of nova-compute"
pinned_cpus() { row "select json_extract(numa_topology, '\$.\"nova_object.data\".cells[0].\"nova_object.data\".pinned_cpus') from nova.compute_nodes where deleted=0 and host='$LAB_HOST'"; }
pin_cpus() { row "update nova.compute_nodes set numa_topology=json_set(numa_topology, '\$.\"nova_object.data\".cells[0].\"nova_object.data\".pinned_cpus', json_array($1)) where deleted=0 and host='$LAB_HOST'"; }
b_node_pinned_cpus() { pin_cpus 1; }
c_node_pinned_cpus() { [ "$(pinned_cpus)" = '[1]' ]; }
f_node_pinned_cpus() { pin_cpus ''; }
