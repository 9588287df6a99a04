# Faults: network. Sourced by faults.sh, which defines the functions used here.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034

fault tap-renamed vm-plain "the guest's tap device is renamed" "nothing; OVS reports the port's device as missing"
b_tap_renamed() { local t; t=$(first_tap); echo "$t" | save tap; ip link set "$t" down; ip link set "$t" name "lab${t#tap}"; ip link set "lab${t#tap}" up; }
c_tap_renamed() { ip link show "lab$(saved tap | cut -c4-)" >/dev/null 2>&1; }
f_tap_renamed() { local t; t=$(saved tap); ! c_tap_renamed || { ip link set "lab${t#tap}" down; ip link set "lab${t#tap}" name "$t"; }; ip link set "$t" up; }

fault tap-deleted vm-data "ip link del of the guest's tap: qemu keeps a dead file descriptor" "nothing until a hard reboot"
b_tap_deleted() { local t; t=$(first_tap); echo "$t" | save tap; ip link del "$t"; }
c_tap_deleted() { ! ip link show "$(saved tap)" >/dev/null 2>&1; }
f_tap_deleted() { back_to_active; }

port_id() { row "select port_id from neutron.ml2_port_bindings where port_id in (select id from neutron.ports where device_id='$u') limit 1"; }
fault port-deleted vm-resized "openstack port delete of a port in use" "nova drops it from its cache and detaches the NIC (the guest never releases it)"
b_port_deleted() {
  port_id | save port; osc port show "$(saved port)" -f json | save port.json; osc port delete "$(saved port)"
}
c_port_deleted() { [ "$(row "select count(*) from neutron.ports where id='$(saved port)'")" = 0 ]; }
f_port_deleted() {
  thaw
  local p; p=$(osc port create --network "$(jq -r .network_id "$S/port.json")" --mac-address "$(jq -r .mac_address "$S/port.json")" \
    --fixed-ip "ip-address=$(jq -r '.fixed_ips[0].ip_address' "$S/port.json")" lab-replacement -f value -c id)
  osc server add port "$u" "$p"; back_to_active; echo "$p" | save port
}

fault port-disabled vm-snap "the neutron port is administratively down" "nothing in nova: status stays ACTIVE"
b_port_disabled() { port_id | save port; osc port set --disable "$(saved port)"; }
c_port_disabled() { [ "$(row "select admin_state_up from neutron.ports where id='$(saved port)'")" = 0 ]; }
f_port_disabled() { osc port set --enable "$(saved port)"; }
