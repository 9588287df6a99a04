# Faults: placement. Sourced by faults.sh, which defines the functions used here.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034

fault placement-lost vm-tenant "the instance's placement allocations are deleted" "nothing for a running instance"
b_placement_lost() { osc resource provider allocation delete "$u"; }
c_placement_lost() { [ "$(row "select count(*) from placement.allocations where consumer_id='$u'")" = 0 ]; }
f_placement_lost() { (cd /; HOME=/var/lib/nova setpriv --reuid nova --regid nova --init-groups nova-manage placement heal_allocations --instance "$u" >/dev/null) || [ "$(row "select count(*) from placement.allocations where consumer_id='$u'")" != 0 ]; }

rp_id() { row "select uuid from placement.resource_providers where name=(select hypervisor_hostname from nova.compute_nodes where deleted=0 and host='$LAB_HOST' limit 1)"; }
alloc_set() { # CONSUMER MEMORY: through the API
  osc --os-placement-api-version 1.28 resource provider allocation set --allocation "rp=$(rp_id),VCPU=1,MEMORY_MB=$2,DISK_GB=1" \
    --project-id "$(row "select id from keystone.project where name='admin' and domain_id='default'")" --user-id "$(row "select user_id from keystone.local_user where name='admin'")" "$1" -f value >/dev/null
}
fault placement-cut vm-config "placement has allocated half of the instance's memory" "nothing for a running instance"
memory_allocated() { row "select used from placement.allocations where consumer_id='$u' and resource_class_id=1"; }
set_memory_allocated() { row "update placement.allocations set used=$1 where consumer_id='$u' and resource_class_id=1"; }
b_placement_cut() { memory_allocated | save memory; set_memory_allocated "$(($(saved memory) / 2))"; }
c_placement_cut() { [ "$(memory_allocated)" != "$(saved memory)" ]; }
f_placement_cut() { set_memory_allocated "$(saved memory)"; }

fault trait-left - "the resource provider has COMPUTE_STATUS_DISABLED, but the service is enabled" "removed when nova-compute reads the provider again (within five minutes)"
trait_id() { row "select id from placement.traits where name='COMPUTE_STATUS_DISABLED'"; }
provider_id() { row "select id from placement.resource_providers where uuid='$(rp_id)'"; }
b_trait_left() { row "insert ignore into placement.resource_provider_traits (trait_id,resource_provider_id) values ($(trait_id),$(provider_id))"; }
c_trait_left() { [ "$(row "select count(*) from placement.resource_provider_traits where trait_id=$(trait_id) and resource_provider_id=$(provider_id)")" = 1 ]; }
f_trait_left() { row "delete from placement.resource_provider_traits where trait_id=$(trait_id) and resource_provider_id=$(provider_id)"; }

fault placement-orphan - "an allocation whose consumer is not an instance" "nothing (placement audit finds it)"
b_placement_orphan() { new_uuid | save id; alloc_set "$(saved id)" 512; }
c_placement_orphan() { [ "$(row "select count(*) from placement.allocations where consumer_id='$(saved id)'")" = 3 ]; }
f_placement_orphan() { osc resource provider allocation delete "$(saved id)"; }

fault aggregate-lost - "placement has the host in no aggregate, nova has it in one" "nothing; tenants and zones that placement filters find no host"
b_aggregate_lost() {
  osc aggregate create lab-ssd -f value -c id | save aggregate
  row "insert into nova_api.aggregate_hosts (created_at, host, aggregate_id) values (utc_timestamp(), '$LAB_HOST', $(saved aggregate))"
}
c_aggregate_lost() { [ "$(row "select count(*) from nova_api.aggregate_hosts where aggregate_id=$(saved aggregate)")" = 1 ]; }
f_aggregate_lost() { row "delete from nova_api.aggregate_hosts where aggregate_id=$(saved aggregate)"; osc aggregate delete "$(saved aggregate)"; }

fault provider-renamed - "the host's resource provider has another name than its compute node" "nothing"
b_provider_renamed() { rp_id | save id; osc resource provider set --name vm-old "$(saved id)" -f value >/dev/null; }
provider_name() { row "select name from placement.resource_providers where uuid='$(saved id)'"; }
c_provider_renamed() { [ "$(provider_name)" = vm-old ]; }
f_provider_renamed() { osc resource provider set --name "$(row "select hypervisor_hostname from nova.compute_nodes where deleted=0 and host='$LAB_HOST' limit 1")" "$(saved id)" -f value >/dev/null; }

fault ratio-lowered - "the VCPU allocation_ratio of the compute node was lowered in placement: more is used than it offers" "nothing: nova-compute keeps a ratio that nova.conf does not set"
vcpu_ratio() { row "select i.allocation_ratio from placement.inventories i join placement.resource_providers r on r.id=i.resource_provider_id where r.uuid='$(rp_id)' and i.resource_class_id=0"; }
set_vcpu_ratio() { osc resource provider inventory set "$(rp_id)" --amend --resource "VCPU:allocation_ratio=$1" >/dev/null; } # RATIO
b_ratio_lowered() { vcpu_ratio | save ratio; set_vcpu_ratio 1.0; }
c_ratio_lowered() { [ "$(vcpu_ratio)" = 1 ]; }
f_ratio_lowered() { set_vcpu_ratio "$(saved ratio)"; }

fault node-uuid-changed - "the compute node's row has another UUID than its resource provider" "nothing until nova-compute restarts; then it can't make a provider of the same name"
b_node_uuid_changed() { row "select concat(id, ' ', uuid) from nova.compute_nodes where deleted=0 and host='$LAB_HOST' limit 1" | save row; row "update nova.compute_nodes set uuid='$(new_uuid)' where id=$(cut -d' ' -f1 "$S/row")"; }
c_node_uuid_changed() { [ "$(row "select uuid from nova.compute_nodes where id=$(cut -d' ' -f1 "$S/row")")" != "$(cut -d' ' -f2 "$S/row")" ]; }
f_node_uuid_changed() { row "update nova.compute_nodes set uuid='$(cut -d' ' -f2 "$S/row")' where id=$(cut -d' ' -f1 "$S/row")"; }
