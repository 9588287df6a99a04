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
