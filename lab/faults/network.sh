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

router_ns() { ip netns list | awk '/^qrouter-/ && !n++ { print $1 }'; }
tap_number() { ovs-vsctl get Interface "$(first_tap)" ofport; }
floating_ip() { row "select floating_ip_address from neutron.floatingips where fixed_port_id = '$(port_id)'"; }

fault fip-rules-gone vm-plain "the router's rules of the floating IP are flushed" "nothing: the agent writes them again at its next restart or change"
b_fip_rules_gone() {
  local n r; n=$(router_ns); floating_ip | save fip
  ip netns exec "$n" iptables-save -t nat | save nat
  while read -r r; do
    # shellcheck disable=SC2086  # the rule is words
    ip netns exec "$n" iptables -t nat -D ${r#-A }
  done < <(grep -wF "$(saved fip)" "$S/nat" | grep -- '-j [DS]NAT')
}
c_fip_rules_gone() { ! ip netns exec "$(router_ns)" iptables-save -t nat | grep -q "PREROUTING -d $(saved fip)/"; }
f_fip_rules_gone() { ip netns exec "$(router_ns)" iptables-restore -T nat <"$S/nat"; }

fault dhcp-entry-gone vm-plain "dnsmasq's file loses the guest's MAC address" "nothing until the agent writes the file again"
dhcp_file() { echo "/var/lib/neutron/dhcp/$(row "select network_id from neutron.ports where id = '$(port_id)'")/host"; }
port_mac() { row "select mac_address from neutron.ports where id = '$(port_id)'"; }
b_dhcp_entry_gone() { local f; f=$(dhcp_file); cp -p "$f" "$S/host"; grep -v "$(port_mac)" "$S/host" >"$f" || true; }
c_dhcp_entry_gone() { ! grep -q "$(port_mac)" "$(dhcp_file)"; }
f_dhcp_entry_gone() { cat "$S/host" >"$(dhcp_file)"; }

fault flows-gone vm-plain "the OpenFlow rules of the guest's port are deleted" "nothing: the port stays ACTIVE"
b_flows_gone() {
  local n; n=$(tap_number); ovs-ofctl -O OpenFlow13 dump-flows --no-stats br-int | save flows
  ovs-ofctl -O OpenFlow13 del-flows br-int "in_port=$n"
  ovs-ofctl -O OpenFlow13 del-flows br-int "reg5=$n"
}
c_flows_gone() { ! ovs-ofctl -O OpenFlow13 dump-flows br-int "in_port=$(tap_number)" | grep -q 'table='; }
f_flows_gone() {
  osc port set --disable "$(port_id)"
  until_ok 30 port_is DOWN
  osc port set --enable "$(port_id)"
  until_ok 60 port_is ACTIVE || die "the port of $I is not ACTIVE"
}
port_is() { [ "$(row "select status from neutron.ports where id = '$(port_id)'")" = "$1" ]; }

fault link-down vm-plain "virsh domif-setlink: the guest's cable is unplugged" "nothing until a hard reboot"
b_link_down() { first_tap | save tap; virsh domif-setlink "$u" "$(saved tap)" down; }
c_link_down() { virsh domif-getlink "$u" "$(saved tap)" | grep -q down; }
f_link_down() { virsh domif-setlink "$u" "$(saved tap)" up; }
