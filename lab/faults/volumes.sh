# Faults: cinder, glance. Sourced by faults.sh, which defines the functions used here.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034

vol_of() { row "select volume_id from nova.block_device_mapping where instance_uuid='$u' and deleted=0 and volume_id is not null limit 1"; }
fault volume-file-gone vm-bfv "the volume's file on the share is renamed under the running guest" "nothing until the next start"
b_volume_file_gone() { vol_of | save vol; mv "/srv/hoodlab-nfs/volume-$(saved vol)" "/srv/hoodlab-nfs/lab-away"; }
c_volume_file_gone() { [ ! -e "/srv/hoodlab-nfs/volume-$(saved vol)" ]; }
f_volume_file_gone() { mv /srv/hoodlab-nfs/lab-away "/srv/hoodlab-nfs/volume-$(saved vol)"; }

attachment_of() { row "select id from cinder.volume_attachment where volume_id='$(saved vol)' and deleted=0 limit 1"; }
fault attachment-deleted vm-data "cinder's attachment of the volume is gone and the volume is available, while the guest uses it" "a reboot through nova 28.0.0 or later would destroy the volume's row"
b_attachment_deleted() {
  vol_of | save vol; attachment_of | save id
  row "update cinder.volume_attachment set deleted=1, deleted_at=utc_timestamp(), attach_status='detached' where id='$(saved id)'; update cinder.volumes set status='available', attach_status='detached' where id='$(saved vol)'"
}
c_attachment_deleted() { [ "$(row "select deleted from cinder.volume_attachment where id='$(saved id)'")" = 1 ]; }
f_attachment_deleted() { row "update cinder.volume_attachment set deleted=0, deleted_at=NULL, attach_status='attached' where id='$(saved id)'; update cinder.volumes set status='in-use', attach_status='attached' where id='$(saved vol)'"; }

fault volume-reset vm-data "the volume's status is reset to available while the guest uses it" "nothing; cinder would allow its deletion"
b_volume_reset() { vol_of | save vol; osc volume set --state available "$(saved vol)"; }
c_volume_reset() { [ "$(row "select status from cinder.volumes where id='$(saved vol)'")" = available ]; }
f_volume_reset() { osc volume set --state in-use "$(saved vol)"; }

fault attachment-host vm-data "cinder's attachment names a host other than the guest's" "nothing"
b_attachment_host() { vol_of | save vol; attachment_of | save id; row "update cinder.volume_attachment set attached_host='vm-old' where id='$(saved id)'"; }
c_attachment_host() { [ "$(row "select attached_host from cinder.volume_attachment where id='$(saved id)'")" = vm-old ]; }
f_attachment_host() { row "update cinder.volume_attachment set attached_host='$LAB_HOST' where id='$(saved id)'"; }

fault attachment-twice vm-data "cinder has a second attachment of the volume, to another server" "nothing"
b_attachment_twice() {
  vol_of | save vol; new_uuid | save id
  row "insert into cinder.volume_attachment (created_at,updated_at,deleted,id,volume_id,attached_host,instance_uuid,mountpoint,attach_time,attach_mode,attach_status)
       values (utc_timestamp(),utc_timestamp(),0,'$(saved id)','$(saved vol)','$LAB_HOST','$(uuid_of vm-plain)','/dev/vdf',utc_timestamp(),'rw','attached')"
}
c_attachment_twice() { [ "$(row "select count(*) from cinder.volume_attachment where volume_id='$(saved vol)' and deleted=0")" = 2 ]; }
f_attachment_twice() { row "delete from cinder.volume_attachment where id='$(saved id)'"; }

fault db-bdm-twice vm-data "block_device_mapping has two rows for the attached volume" "a hard reboot would attach it twice"
bdm_columns() { row "select group_concat(column_name) from information_schema.columns where table_schema='nova' and table_name='block_device_mapping' and column_name not in ('id','uuid')"; }
b_db_bdm_twice() {
  vol_of | save vol
  row "insert into nova.block_device_mapping ($(bdm_columns),uuid) select $(bdm_columns),uuid() from nova.block_device_mapping where volume_id='$(saved vol)' and deleted=0 and instance_uuid='$u'"
  row "select max(id) from nova.block_device_mapping where volume_id='$(saved vol)' and deleted=0" | save id
}
c_db_bdm_twice() { [ "$(row "select count(*) from nova.block_device_mapping where volume_id='$(saved vol)' and deleted=0")" = 2 ]; }
f_db_bdm_twice() { row "delete from nova.block_device_mapping where id=$(saved id)"; }

fault image-deleted vm-snap "the image the instance was made from is deleted in glance" "rebuild, rescue and cold start without a cached base fail"
b_image_deleted() { row "select image_ref from nova.instances where uuid='$u'" | save img; ln "/var/lib/glance/images/$(saved img)" "$S/image"; osc image delete "$(saved img)"; }
c_image_deleted() { [ "$(row "select status from glance.images where id='$(saved img)'")" = deleted ]; }
f_image_deleted() {
  mv "$S/image" "/var/lib/glance/images/$(saved img)"; local i; i=$(saved img)
  row "update glance.images set status='active', deleted=0, deleted_at=NULL where id='$i'; update glance.image_locations set status='active', deleted=0, deleted_at=NULL where image_id='$i'; update glance.image_properties set deleted=0, deleted_at=NULL where image_id='$i'"
}

long_ago="utc_timestamp() - interval 5 hour"
set_volume() { row "update cinder.volumes set $1 where id='$(saved vol)'"; }
volume_is() { [ "$(row "select count(*) from cinder.volumes where id='$(saved vol)' and $1")" = 1 ]; }
keep_volume_time() { vol_of | save vol; row "select updated_at from cinder.volumes where id='$(saved vol)'" | save at; }

fault volume-detaching vm-data "the volume has been detaching for five hours, as after a lost request" "nothing; cinder refuses to attach, detach or extend it"
b_volume_detaching() { keep_volume_time; set_volume "status='detaching', updated_at=$long_ago"; }
c_volume_detaching() { volume_is "status='detaching'"; }
f_volume_detaching() { set_volume "status='in-use', updated_at='$(saved at)'"; }

fault volume-extend-failed vm-bfv "extending the boot volume failed: error_extending" "nothing"
b_volume_extend_failed() { keep_volume_time; set_volume "status='error_extending', updated_at=$long_ago"; }
c_volume_extend_failed() { volume_is "status='error_extending'"; }
f_volume_extend_failed() { set_volume "status='in-use', updated_at='$(saved at)'"; }

fault attachment-attaching vm-data "cinder never heard that the attachment was completed: it is still attaching" "nothing"
bdm_time() { row "update nova.block_device_mapping set updated_at=$1 where volume_id='$(saved vol)' and deleted=0"; }
b_attachment_attaching() {
  keep_volume_time; attachment_of | save id
  row "select updated_at from nova.block_device_mapping where volume_id='$(saved vol)' and deleted=0" | save bdm_at
  set_volume "updated_at=$long_ago"; bdm_time "$long_ago"
  row "update cinder.volume_attachment set attach_status='attaching' where id='$(saved id)'"
}
c_attachment_attaching() { [ "$(row "select attach_status from cinder.volume_attachment where id='$(saved id)'")" = attaching ]; }
f_attachment_attaching() {
  row "update cinder.volume_attachment set attach_status='attached' where id='$(saved id)'"
  set_volume "updated_at='$(saved at)'"; bdm_time "'$(saved bdm_at)'"
}

fault cinder-volume-down - "cinder-volume is stopped: cinder reports it as down after a minute" "requests for its volumes wait in the queue"
b_cinder_volume_down() { stop cinder-volume; }
c_cinder_volume_down() { ! alive cinder-volume; }
f_cinder_volume_down() { start_again cinder-volume; until_ok 60 cinder_volume_up || die "cinder-volume does not report (log: /var/log/cinder/cinder-volume.log)"; }
cinder_volume_up() { [ "$(osc volume service list --service cinder-volume -f value -c State)" = up ]; }

fault backend-renamed vm-data "the volume belongs to a backend that no service of cinder has, as after a renaming" "requests for the volume are sent to nobody"
b_backend_renamed() { vol_of | save vol; row "select host from cinder.volumes where id='$(saved vol)'" | save host; set_volume "host='$LAB_HOST@old#old'"; }
c_backend_renamed() { volume_is "host like '%@old#old'"; }
f_backend_renamed() { set_volume "host='$(saved host)'"; }

fault db-connection-mode vm-data "nova's connection_info has the volume as read only (ro); the guest and cinder have it as rw" "the next start of the guest has a disk that can't be written"
set_mode() { row "update nova.block_device_mapping set connection_info=replace(connection_info, '\"access_mode\": \"$1\"', '\"access_mode\": \"$2\"') where volume_id='$(saved vol)' and deleted=0"; }
b_db_connection_mode() { vol_of | save vol; set_mode rw ro; }
c_db_connection_mode() { row "select connection_info from nova.block_device_mapping where volume_id='$(saved vol)' and deleted=0" | has '"access_mode": "ro"'; }
f_db_connection_mode() { set_mode ro rw; }

fault volume-multiattach vm-data "cinder has the volume as multiattach, but the guest's disk is not shareable" "a second server with the volume does not start: the file is locked"
b_volume_multiattach() { vol_of | save vol; set_volume "multiattach=1"; }
c_volume_multiattach() { volume_is "multiattach=1"; }
f_volume_multiattach() { set_volume "multiattach=0"; }

fault cache-config - "nova.conf sets another cache mode (file=writethrough) than the running guests have" "each guest gets it at its next hard reboot"
b_cache_config() { save nova.conf </etc/nova/nova.conf; sed -i 's/^\[libvirt\]$/&\ndisk_cachemodes = file=writethrough/' /etc/nova/nova.conf; }
c_cache_config() { grep -q '^disk_cachemodes' /etc/nova/nova.conf; }
f_cache_config() { sed -i '/^disk_cachemodes/d' /etc/nova/nova.conf; }

image_of() { row "select image_ref from nova.instances where uuid='$u'"; }
fault image-deactivated vm-snap "the image the instance was made from is deactivated in glance" "rebuild, rescue and moves to a host without its base image fail"
b_image_deactivated() { image_of | save img; osc image set --deactivate "$(saved img)"; }
c_image_deactivated() { [ "$(row "select status from glance.images where id='$(saved img)'")" = deactivated ]; }
f_image_deactivated() { osc image set --activate "$(saved img)"; }

fault image-replaced vm-snap "glance has another checksum for the image than when the instance was made" "the next download is another image"
b_image_replaced() {
  image_of | save img; row "select checksum from glance.images where id='$(saved img)'" | save sum
  row "update glance.images set checksum='00000000000000000000000000000000' where id='$(saved img)'"
}
c_image_replaced() { [ "$(row "select checksum from glance.images where id='$(saved img)'")" != "$(saved sum)" ]; }
f_image_replaced() { row "update glance.images set checksum='$(saved sum)' where id='$(saved img)'"; }

fault snapshot-stuck vm-plain "a snapshot is queued in glance since three hours, as nova-compute leaves it if it ends while it makes one" "nothing; the image stays"
b_snapshot_stuck() { # the client would read data for the image from its standard input
  local token url body
  token=$(osc token issue -f value -c id) url=$(osc endpoint list --service image --interface public -f value -c URL)
  body="{\"name\": \"before-upgrade\", \"disk_format\": \"qcow2\", \"container_format\": \"bare\", \"image_type\": \"snapshot\", \"instance_uuid\": \"$u\", \"base_image_ref\": \"$(image_of)\"}"
  curl -sf -H "X-Auth-Token: $token" -H 'Content-Type: application/json' -d "$body" "${url%/}/v2/images" | jq -r .id | save img
  echo "req-$(new_uuid)" | save request
  row "insert into nova.instance_actions (created_at, action, instance_uuid, request_id, user_id, project_id, start_time, deleted)
    select utc_timestamp() - interval 3 hour, 'createImage', uuid, '$(saved request)', user_id, project_id, utc_timestamp() - interval 3 hour, 0
    from nova.instances where uuid='$u'"
  row "update glance.images set created_at = utc_timestamp() - interval 3 hour, updated_at = utc_timestamp() - interval 3 hour where id='$(saved img)'"
}
c_snapshot_stuck() { [ "$(row "select status from glance.images where id='$(saved img)' and deleted=0")" = queued ]; }
f_snapshot_stuck() {
  ! c_snapshot_stuck || osc image delete "$(saved img)"
  row "delete from nova.instance_actions where request_id='$(saved request)'"
}

fault shelve-image-gone vm-shelved "the image of a shelved instance is deleted in glance: it holds the only copy of its disk" "unshelving fails"
b_shelve_image_gone() {
  row "select value from nova.instance_system_metadata where instance_uuid='$u' and \`key\`='shelved_image_id' and deleted=0" | save img
  ln "/var/lib/glance/images/$(saved img)" "$S/image"; osc image delete "$(saved img)"
}
c_shelve_image_gone() { c_image_deleted; }
f_shelve_image_gone() { f_image_deleted; }

fault db-image-bus vm-stopped "nova's copy of the image of a stopped server asks for another disk bus (ide), and its disk has no bus of its own, as in old releases" "the next start moves its disk to the other bus"
set_bus() { row "update nova.instance_system_metadata set value='$1' where instance_uuid='$u' and \`key\`='image_hw_disk_bus'"; }
get_bus() { row "select value from nova.instance_system_metadata where instance_uuid='$u' and \`key\`='image_hw_disk_bus'"; }
set_root_bus() { row "update nova.block_device_mapping set disk_bus=$1 where instance_uuid='$u' and deleted=0 and boot_index=0"; }
b_db_image_bus() {
  get_bus | save bus; row "select quote(disk_bus) from nova.block_device_mapping where instance_uuid='$u' and deleted=0 and boot_index=0" | save root_bus
  set_bus ide; set_root_bus NULL
}
c_db_image_bus() { [ "$(get_bus)" = ide ]; }
f_db_image_bus() { set_bus "$(saved bus)"; set_root_bus "$(saved root_bus)"; }

fault db-image-bus-running vm-snap "nova's copy of the image of a running server asks for another disk bus (ide) than the guest has" "a hard reboot moves the guest's disk to the other bus"
b_db_image_bus_running() { b_db_image_bus; }
c_db_image_bus_running() { c_db_image_bus; }
f_db_image_bus_running() { f_db_image_bus; }

fault db-image-card vm-duo "nova's copy of the image asks for another network card (e1000) than the guest has" "a hard reboot changes the guest's card"
set_card() { row "update nova.instance_system_metadata set value='$1' where instance_uuid='$u' and \`key\`='image_hw_vif_model'"; }
b_db_image_card() { set_card e1000; }
c_db_image_card() { [ "$(row "select value from nova.instance_system_metadata where instance_uuid='$u' and \`key\`='image_hw_vif_model'")" = e1000 ]; }
f_db_image_card() { set_card virtio; }

fault volume-migrating vm-data "cinder has been migrating the volume for nine hours, as after cinder-volume was restarted; nothing copies it" "nothing; cinder refuses to extend, detach or delete it"
b_volume_migrating() { keep_volume_time; set_volume "migration_status='migrating', updated_at=utc_timestamp() - interval 9 hour"; }
c_volume_migrating() { volume_is "migration_status='migrating'"; }
f_volume_migrating() { set_volume "migration_status=NULL, updated_at='$(saved at)'"; }

fault volume-extend-unheard vm-data "the volume was extended to 5 GiB in cinder and on the share, but nova never received the event" "the guest keeps a disk of 1 GiB until its next start"
mapped_size() { row "select volume_size from nova.block_device_mapping where volume_id='$(saved vol)' and deleted=0"; }
b_volume_extend_unheard() { vol_of | save vol; truncate -s 5G "/srv/hoodlab-nfs/volume-$(saved vol)"; set_volume "size=5"; }
c_volume_extend_unheard() { volume_is "size=5" && [ "$(mapped_size)" = 1 ]; }
f_volume_extend_unheard() {
  virsh blockresize "$u" "$(virsh domblklist "$u" | awk '/volume-/ { print $1; exit }')" 1G >/dev/null
  truncate -s 1G "/srv/hoodlab-nfs/volume-$(saved vol)"; set_volume "size=1"
  row "update nova.block_device_mapping set volume_size=1 where volume_id='$(saved vol)' and deleted=0"
}

fault db-device-name vm-data "nova's record of an attached volume has another device name than the guest's disk" "nothing; the next start puts the disk at this name"
b_db_device_name() { row "select concat(id, ' ', device_name) from nova.block_device_mapping where instance_uuid='$u' and deleted=0 and volume_id is not null limit 1" | save row; row "update nova.block_device_mapping set device_name='/dev/vdz' where id=$(cut -d' ' -f1 "$S/row")"; }
c_db_device_name() { [ "$(row "select device_name from nova.block_device_mapping where id=$(cut -d' ' -f1 "$S/row")")" = /dev/vdz ]; }
f_db_device_name() { row "update nova.block_device_mapping set device_name='$(cut -d' ' -f2 "$S/row")' where id=$(cut -d' ' -f1 "$S/row")"; }
new_volume() { # NAME: a volume of 1 GiB that no server has
  osc volume create --size 1 "$1" -f value -c id | save vol
  until_ok 60 volume_is "status='available'" || die "cinder did not create the volume $1 (log: /var/log/cinder/cinder-volume.log)"
}
no_volume() { osc volume set --state available "$(saved vol)"; osc volume delete "$(saved vol)"; until_ok 60 eval '! volume_is deleted=0'; }

fault volume-reserved - "a volume without a server has been reserved for five hours, as after an attachment that broke off" "nothing; nobody can attach or delete it"
b_volume_reserved() { new_volume lab-stuck; set_volume "status='reserved', updated_at=$long_ago"; }
c_volume_reserved() { volume_is "status='reserved'"; }
f_volume_reserved() { no_volume; }

attach_for() { # UUID: cinder has attached the volume to this server of the host
  new_uuid | save id
  row "insert into cinder.volume_attachment (created_at,updated_at,deleted,id,volume_id,attached_host,instance_uuid,mountpoint,attach_time,attach_mode,attach_status,connection_info)
       values ($long_ago,$long_ago,0,'$(saved id)','$(saved vol)','$LAB_HOST','$1','/dev/vdb',$long_ago,'rw','attached','{}')"
  set_volume "status='in-use', attach_status='attached', updated_at=$long_ago"
}
attached_still() { [ "$(row "select count(*) from cinder.volume_attachment where id='$(saved id)' and deleted=0")" = 1 ]; }
not_attached() { row "delete from cinder.volume_attachment where id='$(saved id)'"; set_volume "attach_status='detached'"; no_volume; }

fault volume-of-nobody - "cinder has a volume attached to a server that does not exist, as after a deletion that did not reach cinder" "nothing; nobody can detach or delete it"
b_volume_of_nobody() { new_volume lab-nobodys; attach_for "$(new_uuid)"; }
c_volume_of_nobody() { attached_still; }
f_volume_of_nobody() { not_attached; }

fault volume-of-deleted - "a deleted server still has a volume, in nova's record and in cinder" "nothing; no other server can use the volume"
b_volume_of_deleted() {
  local deleted; deleted=$(uuid_of vm-deleted)
  new_volume lab-kept; attach_for "$deleted"
  row "insert into nova.block_device_mapping (created_at,updated_at,deleted,device_name,volume_id,volume_size,instance_uuid,source_type,destination_type,device_type,disk_bus,attachment_id,uuid,connection_info)
       values ($long_ago,$long_ago,0,'/dev/vdb','$(saved vol)',1,'$deleted','volume','volume','disk','virtio','$(saved id)',uuid(),'{}')"
}
c_volume_of_deleted() { attached_still; }
f_volume_of_deleted() { row "delete from nova.block_device_mapping where volume_id='$(saved vol)'"; not_attached; }

fault boot-volume-unmarked vm-bfv "cinder marks the volume that the guest boots from as not bootable" "nothing; no other server can boot from it"
b_boot_volume_unmarked() { vol_of | save vol; osc volume set --non-bootable "$(saved vol)"; }
c_boot_volume_unmarked() { volume_is "bootable=0"; }
f_boot_volume_unmarked() { osc volume set --bootable "$(saved vol)"; }
