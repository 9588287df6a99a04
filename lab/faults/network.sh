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

fault tap-mtu vm-plain "the MTU of the guest's tap alone is 900" "nothing"
b_tap_mtu() { local t; t=$(first_tap); echo "$t" | save tap; cat "/sys/class/net/$t/mtu" | save mtu; ip link set "$t" mtu 900; }
c_tap_mtu() { [ "$(cat "/sys/class/net/$(saved tap)/mtu")" = 900 ]; }
f_tap_mtu() { ip link set "$(saved tap)" mtu "$(saved mtu)"; }

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

fault binding-left vm-data "the port has an inactive binding to a host that does not exist, as after a live migration that was cut off" "nothing; the next live migration to that host fails"
b_binding_left() { port_id | save port; row "insert into neutron.ml2_port_bindings (port_id,host,vif_type,vnic_type,profile,vif_details,status) values ('$(saved port)','compute-old','unbound','normal','','','INACTIVE')"; }
c_binding_left() { [ "$(row "select count(*) from neutron.ml2_port_bindings where port_id='$(saved port)' and host='compute-old'")" = 1 ]; }
f_binding_left() { row "delete from neutron.ml2_port_bindings where port_id='$(saved port)' and host='compute-old'"; }

fault card-address-edited vm-duo "the domain was started with another MAC address of its card, as after virsh edit" "nothing: the port stays ACTIVE, and its filters drop what the guest sends"
b_card_address_edited() {
  save_definition; sed "s/<mac address='fa:16:3e:..:..:/<mac address='fa:16:3e:ab:cd:/" "$S/inactive.xml" | save edited.xml
  virsh -q define "$S/edited.xml"; virsh -q destroy "$u"; virsh -q start "$u"
}
c_card_address_edited() { virsh domiflist "$u" | has 'fa:16:3e:ab:cd:'; }
f_card_address_edited() { virsh -q define "$S/inactive.xml"; back_to_active; }

fault port-never-attached vm-plain "openstack port create --device UUID, as by an orchestration tool: nova never attached the port" "nova takes the port into its info cache and binds it within minutes; the next hard reboot plugs a card"
b_port_never_attached() {
  osc port create --network lab-net2 --device "$u" --device-owner compute:nova stack-port -f value -c id | tail -n 1 | save port
}
c_port_never_attached() { [ "$(row "select count(*) from neutron.ports where id='$(saved port)' and device_id='$u'")" = 1 ]; }
f_port_never_attached() { osc port delete "$(saved port)"; }

fault port-disabled vm-snap "the neutron port is administratively down" "nothing in nova: status stays ACTIVE"
b_port_disabled() { port_id | save port; osc port set --disable "$(saved port)"; }
c_port_disabled() { [ "$(row "select admin_state_up from neutron.ports where id='$(saved port)'")" = 0 ]; }
f_port_disabled() { osc port set --enable "$(saved port)"; }

fault port-owner-lost vm-tenant "the neutron port loses its device_owner, as after a detach that was cut off" "nothing; the next start waits for an event that neutron does not send"
b_port_owner_lost() { port_id | save port; row "select device_owner from neutron.ports where id='$(saved port)'" | save owner; row "update neutron.ports set device_owner='' where id='$(saved port)'"; }
c_port_owner_lost() { [ "$(row "select count(*) from neutron.ports where id='$(saved port)' and device_owner=''")" = 1 ]; }
f_port_owner_lost() { osc port set --device-owner "$(saved owner)" "$(saved port)"; }

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
c_fip_rules_gone() { ! ip netns exec "$(router_ns)" iptables-save -t nat | has "PREROUTING -d $(saved fip)/"; }
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
c_flows_gone() { ! ovs-ofctl -O OpenFlow13 dump-flows br-int "in_port=$(tap_number)" | has 'table='; }
f_flows_gone() {
  osc port set --disable "$(port_id)"
  until_ok 30 port_is DOWN
  osc port set --enable "$(port_id)"
  until_ok 60 port_is ACTIVE || die "the port of $I is not ACTIVE"
}
port_is() { [ "$(row "select status from neutron.ports where id = '$(port_id)'")" = "$1" ]; }

fault link-down vm-plain "virsh domif-setlink: the guest's cable is unplugged" "nothing until a hard reboot"
b_link_down() { first_tap | save tap; virsh domif-setlink "$u" "$(saved tap)" down; }
c_link_down() { virsh domif-getlink "$u" "$(saved tap)" | has down; }
f_link_down() { virsh domif-setlink "$u" "$(saved tap)" up; }

fault fip-address-gone vm-linux "the router loses the address of the floating IP" "nothing"
b_fip_address_gone() {
  local n; n=$(router_ns); floating_ip | save fip
  ip -n "$n" -o address | awk '/qg-/ && !n++ { print $2 }' | save device
  ip -n "$n" address del "$(saved fip)/32" dev "$(saved device)"
}
c_fip_address_gone() { ! ip -n "$(router_ns)" -o address | has "$(saved fip)/32"; }
f_fip_address_gone() { ip -n "$(router_ns)" address add "$(saved fip)/32" dev "$(saved device)"; }

fault router-route-gone - "the router's namespace loses its default route" "nothing"
b_router_route_gone() { ip -n "$(router_ns)" route show default | save route; ip -n "$(router_ns)" route del default; }
c_router_route_gone() { [ -z "$(ip -n "$(router_ns)" route show default)" ]; }
f_router_route_gone() { # shellcheck disable=SC2046  # the route is words
  ip -n "$(router_ns)" route add $(saved route)
}

fault router-port-down - "the router's device in the guests' network is switched off, as after a restart of Open vSwitch in user space" "nothing"
router_device() { ip -n "$(router_ns)" -o link | awk -F '[:@ ]+' '$2 ~ /^qr-/ && !n++ { print $2 }'; }
b_router_port_down() { router_device | save device; ip -n "$(router_ns)" link set "$(saved device)" down; }
c_router_port_down() { [ -z "$(ip -n "$(router_ns)" -o link show up dev "$(saved device)")" ]; }
f_router_port_down() { ip -n "$(router_ns)" link set "$(saved device)" up; }

fault flow-table-gone vm-data "the OpenFlow rule of table 60 for the guest's port is deleted" "nothing: the port stays ACTIVE"
b_flow_table_gone() { ovs-ofctl -O OpenFlow13 del-flows br-int "table=60,in_port=$(tap_number)"; }
c_flow_table_gone() { ! ovs-ofctl -O OpenFlow13 dump-flows br-int "table=60,in_port=$(tap_number)" | has 'table='; }
f_flow_table_gone() { f_flows_gone; }

fault iface-id-gone vm-plain "Open vSwitch loses the port's id of the guest's tap" "the agent unplugs the port: DOWN"
b_iface_id_gone() { port_id | save port; first_tap | save tap; ovs-vsctl remove Interface "$(saved tap)" external_ids iface-id; }
c_iface_id_gone() { ! ovs-vsctl get Interface "$(saved tap)" external_ids:iface-id >/dev/null 2>&1; }
f_iface_id_gone() {
  ovs-vsctl set Interface "$(saved tap)" "external_ids:iface-id=$(saved port)"
  until_ok 60 port_is ACTIVE || die "the port of $I is not ACTIVE"
}

fault ports-leaked - "two neutron ports of servers that do not exist are bound to the host" "nothing: they are never deleted"
b_ports_leaked() {
  local i net; net=$(row "select id from neutron.networks where name = 'lab-net'")
  for i in 1 2; do
    osc port create --network "$net" --device "$(new_uuid)" --device-owner compute:nova --host "$LAB_HOST" "lab-leaked-$i" -f value -c id
  done | save ports
  row "update neutron.standardattributes a join neutron.ports p on p.standard_attr_id = a.id
       set a.created_at = utc_timestamp() - interval 5 hour, a.updated_at = utc_timestamp() - interval 5 hour where p.name like 'lab-leaked-%'"
}
c_ports_leaked() { [ "$(row "select count(*) from neutron.ports where name like 'lab-leaked-%'")" -gt 0 ]; }
f_ports_leaked() { local p; while read -r p; do osc port delete "$p" || true; done <"$S/ports"; } # the advice deletes one

fault patch-port-gone - "the patch port to the external bridge is deleted" "nothing until the agent restarts"
b_patch_port_gone() { ovs-vsctl get Interface int-br-ex ofport | save ofport; ovs-vsctl del-port br-int int-br-ex; }
c_patch_port_gone() { ! ovs-vsctl list-ports br-int | has -x int-br-ex; }
f_patch_port_gone() { # with its old number: the agent's flows name it
  ovs-vsctl add-port br-int int-br-ex -- set Interface int-br-ex type=patch options:peer=phy-br-ex "ofport_request=$(saved ofport)"
}

fault stale-ovs-rows - "twelve ports of deleted guests are left in Open vSwitch" "nothing; the switch logs an error for each again and again"
b_stale_ovs_rows() {
  local i p
  for i in $(seq 10 21); do
    p=$(new_uuid); echo "tap${p:0:11}"
    ovs-vsctl add-port br-int "tap${p:0:11}" -- set Interface "tap${p:0:11}" "external_ids:iface-id=$p" \
      "external_ids:attached-mac=fa:16:3e:00:00:$i" external_ids:iface-status=active "external_ids:vm-uuid=$(new_uuid)" 2>/dev/null
  done | save taps
}
c_stale_ovs_rows() { ovs-vsctl list-ports br-int | has -xFf "$S/taps"; }
f_stale_ovs_rows() { while read -r t; do ovs-vsctl --if-exists del-port "$t"; done <"$S/taps"; }

fault db-cache-floating vm-plain "nova's info cache loses the floating IP" "nova up to 2024.2 repairs it within minutes"
b_db_cache_floating() {
  dump_rows nova instance_info_caches "instance_uuid='$u'" | save cache.sql
  row "update nova.instance_info_caches set network_info = json_replace(network_info, '\$[0].network.subnets[0].ips[0].floating_ips', json_array()) where instance_uuid = '$u'"
}
c_db_cache_floating() { [ "$(row "select json_length(json_extract(network_info, '\$[0].network.subnets[0].ips[0].floating_ips')) from nova.instance_info_caches where instance_uuid = '$u'")" = 0 ]; }
f_db_cache_floating() { "${MYSQL[@]}" nova <"$S/cache.sql"; }

fault db-floating-fixed vm-linux "a row of neutron's floating IPs leads to an address of nobody" "nothing"
b_db_floating_fixed() {
  port_id | save port
  row "select fixed_ip_address from neutron.floatingips where fixed_port_id = '$(saved port)'" | save fixed
  row "update neutron.floatingips set fixed_ip_address = '10.20.0.253' where fixed_port_id = '$(saved port)'"
}
c_db_floating_fixed() { [ "$(row "select fixed_ip_address from neutron.floatingips where fixed_port_id = '$(saved port)'")" = 10.20.0.253 ]; }
f_db_floating_fixed() { row "update neutron.floatingips set fixed_ip_address = '$(saved fixed)' where fixed_port_id = '$(saved port)'"; }

fault tap-down vm-plain "the guest's tap is switched off" "nothing"
b_tap_down() { first_tap | save tap; ip link set "$(saved tap)" down; }
c_tap_down() { [ -z "$(ip -o link show up dev "$(saved tap)")" ]; }
f_tap_down() { ip link set "$(saved tap)" up; }

fault switch-port-twice vm-tenant "a second interface in br-int has the id of the guest's port" "the agent wires either one; deleting the second takes the rules of the first away"
b_switch_port_twice() {
  first_tap | save tap
  ovs-vsctl add-port br-int tapdup0 -- set Interface tapdup0 type=internal "external_ids:iface-id=$(port_id)" \
    "external_ids:attached-mac=$(virsh domiflist "$u" | awk '$1 ~ /^tap/ && !n++ { print $5 }')" external_ids:iface-status=active "external_ids:vm-uuid=$u"
}
c_switch_port_twice() { ovs-vsctl list-ports br-int | has -x tapdup0; }
f_switch_port_twice() { ovs-vsctl --if-exists del-port br-int tapdup0; osc server reboot --hard --wait "$u"; until_ok 60 port_is ACTIVE || die "the port of $I is not ACTIVE"; }

dhcp_tap() { # of the first network of the guest
  row "select concat('tap', left(id, 11)) from neutron.ports where device_owner = 'network:dhcp' and network_id =
       (select network_id from neutron.ports where id = '$(port_id)') limit 1"
}
fault switch-vlan vm-plain "the tag of the DHCP server's interface in br-int is changed" "nothing: guests get no address at their next renewal"
b_switch_vlan() { dhcp_tap | save tap; ovs-vsctl get Port "$(saved tap)" tag | save tag; ovs-vsctl set Port "$(saved tap)" tag=7; }
c_switch_vlan() { [ "$(ovs-vsctl get Port "$(saved tap)" tag)" = 7 ]; }
f_switch_vlan() { ovs-vsctl set Port "$(saved tap)" "tag=$(saved tag)"; }

fault patch-peer-wrong - "the patch port to the external bridge names a peer that does not exist" "nothing"
b_patch_peer_wrong() { ovs-vsctl set Interface int-br-ex options:peer=phy-br-old; }
c_patch_peer_wrong() { ovs-vsctl get Interface int-br-ex options:peer | has phy-br-old; }
f_patch_peer_wrong() { ovs-vsctl set Interface int-br-ex options:peer=phy-br-ex; }

dhcp_ns() { echo "qdhcp-$(row "select network_id from neutron.ports where id = '$(port_id)'")"; }
fixed_ip() { row "select ip_address from neutron.ipallocations where port_id = '$(port_id)' limit 1"; }
fault address-twice vm-plain "the guest's address is also on the DHCP server's device" "nothing until the agent restarts"
b_address_twice() { dhcp_tap | save tap; ip -n "$(dhcp_ns)" address add "$(fixed_ip)/24" dev "$(saved tap)"; }
c_address_twice() { ip -n "$(dhcp_ns)" -o address show dev "$(saved tap)" | has -F " $(fixed_ip)/24 "; }
f_address_twice() { ip -n "$(dhcp_ns)" address del "$(fixed_ip)/24" dev "$(saved tap)"; }

fault tap-shaped vm-plain "tc: the guest's tap is limited to 8 kbit/s" "nothing"
b_tap_shaped() { first_tap | save tap; tc qdisc add dev "$(saved tap)" root tbf rate 8kbit burst 1540 latency 50ms; }
c_tap_shaped() { tc qdisc show dev "$(saved tap)" | has tbf; }
f_tap_shaped() { tc qdisc del dev "$(saved tap)" root; }

fault tap-policed vm-snap "Open vSwitch drops what the guest sends above 10 kbit/s" "nothing"
b_tap_policed() { first_tap | save tap; ovs-vsctl set Interface "$(saved tap)" ingress_policing_rate=10 ingress_policing_burst=1; }
c_tap_policed() { [ "$(ovs-vsctl get Interface "$(saved tap)" ingress_policing_rate)" = 10 ]; }
f_tap_policed() { ovs-vsctl set Interface "$(saved tap)" ingress_policing_rate=0 ingress_policing_burst=0; }

foreign_rule() { # adds a rule to br-int, as an operator does
  echo "$1" | save rule
  ovs-ofctl -O OpenFlow13 add-flow br-int "table=0,$1,actions=drop"
}
has_foreign_rule() { ovs-ofctl -O OpenFlow13 dump-flows br-int "cookie=0x0/-1,table=0" | grep -qF "$(saved rule) actions=drop"; }
no_foreign_rule() { ovs-ofctl -O OpenFlow13 --strict del-flows br-int "cookie=0x0/-1,table=0,$(saved rule)"; }

fault foreign-rule-port vm-plain "a rule without neutron's number in table 0 of br-int drops what the guest sends" "nothing: the port stays ACTIVE; the agent deletes the rule at its next start"
b_foreign_rule_port() { foreign_rule "priority=100,in_port=$(tap_number)"; }
c_foreign_rule_port() { has_foreign_rule; }
f_foreign_rule_port() { no_foreign_rule; }

fault foreign-rule-mac vm-linux "a rule without neutron's number in table 0 of br-int drops what is sent to the guest's MAC address" "nothing; the agent deletes the rule at its next start"
b_foreign_rule_mac() { foreign_rule "priority=50,dl_dst=$(port_mac)"; }
c_foreign_rule_mac() { has_foreign_rule; }
f_foreign_rule_mac() { no_foreign_rule; }

fault foreign-rule-all - "a rule without neutron's number in table 0 of br-int drops all IPv4 packets" "nothing; the agent deletes the rule at its next start"
b_foreign_rule_all() { foreign_rule "priority=200,ip"; }
c_foreign_rule_all() { has_foreign_rule; }
f_foreign_rule_all() { no_foreign_rule; }

fault router-forwarding-off - "net.ipv4.ip_forward is 0 in the router's namespace" "nothing until the L3 agent starts again"
b_router_forwarding_off() { ip netns exec "$(router_ns)" sysctl -q -w net.ipv4.ip_forward=0; }
c_router_forwarding_off() { [ "$(ip netns exec "$(router_ns)" sysctl -n net.ipv4.ip_forward)" = 0 ]; }
f_router_forwarding_off() { ip netns exec "$(router_ns)" sysctl -q -w net.ipv4.ip_forward=1; }

without_rules() { # PATTERN: deletes these translations of the router
  local n r; n=$(router_ns)
  ip netns exec "$n" iptables-save -t nat | save nat
  while read -r r; do
    eval "set -- ${r#-A }" # comments are quoted
    ip netns exec "$n" iptables -t nat -D "$@"
  done < <(grep -e "$1" "$S/nat")
}
fault router-metadata-gone - "the router's rule that redirects requests for metadata is deleted" "nothing until the L3 agent changes the router"
b_router_metadata_gone() { without_rules '-d 169.254.169.254/32 .*-j REDIRECT'; }
c_router_metadata_gone() { ! ip netns exec "$(router_ns)" iptables-save -t nat | grep -q 'j REDIRECT'; }
f_router_metadata_gone() { c_router_metadata_gone || return 0; ip netns exec "$(router_ns)" iptables-restore -T nat <"$S/nat"; }

fault router-snat-gone - "the router's rules that translate outgoing packets are deleted" "nothing until the L3 agent changes the router"
b_router_snat_gone() { without_rules 'agent-snat .*-j SNAT .*--random-fully'; }
c_router_snat_gone() { ! ip netns exec "$(router_ns)" iptables-save -t nat | grep -q 'agent-snat -o .*-j SNAT'; }
f_router_snat_gone() { c_router_snat_gone || return 0; ip netns exec "$(router_ns)" iptables-restore -T nat <"$S/nat"; }

fault router-mtu - "the MTU of the router's device in the guests' network is 900" "nothing"
b_router_mtu() {
  local n; n=$(router_ns); router_device | save device
  ip -n "$n" -j link show dev "$(saved device)" | jq -r '.[0].mtu' | save mtu
  ip -n "$n" link set "$(saved device)" mtu 900
}
c_router_mtu() { ip -n "$(router_ns)" -o link show dev "$(saved device)" | grep -q 'mtu 900 '; }
f_router_mtu() { ip -n "$(router_ns)" link set "$(saved device)" mtu "$(saved mtu)"; }

fault dhcp-port-down vm-plain "the DHCP server's device in the guest's network is switched off" "nothing: guests get no address at their next renewal"
b_dhcp_port_down() { dhcp_tap | save tap; ip -n "$(dhcp_ns)" route show default | save route; ip -n "$(dhcp_ns)" link set "$(saved tap)" down; }
c_dhcp_port_down() { # the kernel drops the routes of a device that is switched off
  [ -z "$(ip -n "$(dhcp_ns)" -o link show up dev "$(saved tap)")" ] || [ -z "$(ip -n "$(dhcp_ns)" route show default)" ]
}
f_dhcp_port_down() { # shellcheck disable=SC2046  # the route is words
  ip -n "$(dhcp_ns)" link set "$(saved tap)" up
  ip -n "$(dhcp_ns)" route replace $(saved route)
}

fault fip-without-router vm-linux "a row of neutron's floating IPs has lost its router" "nothing: the agent removes the translation at the router's next change"
b_fip_without_router() {
  port_id | save port
  row "select router_id from neutron.floatingips where fixed_port_id = '$(saved port)'" | save router
  row "update neutron.floatingips set router_id = NULL where fixed_port_id = '$(saved port)'"
}
c_fip_without_router() { [ "$(row "select router_id is null from neutron.floatingips where fixed_port_id = '$(saved port)'")" = 1 ]; }
f_fip_without_router() { row "update neutron.floatingips set router_id = '$(saved router)' where fixed_port_id = '$(saved port)'"; }
fault tap-dead-vlan vm-linux "the guest's tap is in the dead VLAN 4095, as if neutron's agent had stopped at the wrong moment" "nothing until neutron's agent starts again"
b_tap_dead_vlan() { local t; t=$(first_tap); echo "$t" | save tap; ovs-vsctl get Port "$t" tag | save tag; ovs-vsctl set Port "$t" tag=4095; }
c_tap_dead_vlan() { [ "$(ovs-vsctl get Port "$(saved tap)" tag)" = 4095 ]; }
f_tap_dead_vlan() { ovs-vsctl set Port "$(saved tap)" tag="$(saved tag)"; }

fault fip-on-host vm-linux "the guest's floating IP is also on the host's bridge br-ex" "nothing; both answer for it"
b_fip_on_host() { floating_ip | save fip; ip address add "$(saved fip)/32" dev br-ex; }
c_fip_on_host() { ip -4 -brief address show dev br-ex | grep -q "$(saved fip)/32"; }
f_fip_on_host() { ip address del "$(saved fip)/32" dev br-ex; }

fault port-build vm-plain "the port's status is BUILD in neutron, as if the agent had stopped before its report" "nothing until neutron's agent starts again"
b_port_build() { port_id | save port; row "update neutron.ports set status = 'BUILD' where id = '$(saved port)'"; }
c_port_build() { port_is BUILD; }
f_port_build() { row "update neutron.ports set status = 'ACTIVE' where id = '$(saved port)'"; }

fault port-status-down vm-tenant "the port's status is DOWN in neutron, although its tap is wired" "nothing until neutron's agent starts again"
b_port_status_down() { port_id | save port; row "update neutron.ports set status = 'DOWN' where id = '$(saved port)'"; }
c_port_status_down() { port_is DOWN; }
f_port_status_down() { row "update neutron.ports set status = 'ACTIVE' where id = '$(saved port)'"; }

fault bridge-standalone - "the fail mode of br-int is standalone: without the agent it switches past neutron's rules" "nothing until neutron's agent starts again"
b_bridge_standalone() { ovs-vsctl set-fail-mode br-int standalone; }
c_bridge_standalone() { [ "$(ovs-vsctl get-fail-mode br-int)" = standalone ]; }
f_bridge_standalone() { ovs-vsctl set-fail-mode br-int secure; }

fault bridge-controller-gone - "the controller of br-int is removed, which deletes all of its rules" "nothing: the agent finds its switch dead, and waits"
b_bridge_controller_gone() { ovs-vsctl del-controller br-int; }
c_bridge_controller_gone() { [ -z "$(ovs-vsctl get-controller br-int)" ]; }
has_its_rules() { ovs-ofctl -O OpenFlow13 dump-flows br-int table=60 | grep -q 'in_port='; }
f_bridge_controller_gone() {
  ! c_bridge_controller_gone || "$LAB_DIR/systemctl" restart neutron-openvswitch-agent
  until_ok 60 has_its_rules || die "the agent did not write the rules of br-int again"
}

fault bridge-mirrored - "a mirror of br-int copies all packets to the device span0" "nothing"
b_bridge_mirrored() {
  ovs-vsctl add-port br-int span0 -- set Interface span0 type=internal -- --id=@p get Port span0 \
    -- --id=@m create Mirror name=span select_all=true output_port=@p -- add Bridge br-int mirrors @m
}
c_bridge_mirrored() { ovs-vsctl --columns=name list Mirror | has span; }
f_bridge_mirrored() {
  ! c_bridge_mirrored || ovs-vsctl -- --id=@m get Mirror span -- remove Bridge br-int mirrors @m
  ovs-vsctl --if-exists del-port br-int span0
}

fault port-address-lost vm-data "a row of neutron's database is deleted: the port has no address, the guest has it" "up to 2024.2, nova clears the address in its info cache within minutes"
b_port_address_lost() {
  port_id | save port
  dump_rows neutron ipallocations "port_id='$(saved port)'" | save allocation.sql
  dump_rows neutron ipamallocations "ip_address='$(row "select ip_address from neutron.ipallocations where port_id='$(saved port)'")'" | save ipam.sql
  row "delete from neutron.ipallocations where port_id='$(saved port)'"
}
c_port_address_lost() { [ "$(row "select count(*) from neutron.ipallocations where port_id='$(saved port)'")" = 0 ]; }
f_port_address_lost() { cat "$S/allocation.sql" "$S/ipam.sql" | "${MYSQL[@]}" neutron; }

fault card-by-hand vm-linux "virsh attach-interface: the running guest has a second card, on a bridge of the host" "nothing until a hard reboot"
b_card_by_hand() {
  ip link add brlab0 type bridge
  ip link set brlab0 up
  virsh attach-interface "$u" bridge brlab0 --model virtio --mac 52:54:00:1a:b0:01 --live
}
c_card_by_hand() { virsh domiflist "$u" | has 52:54:00:1a:b0:01; }
f_card_by_hand() {
  ! c_card_by_hand || virsh detach-interface "$u" bridge --mac 52:54:00:1a:b0:01 --live
  until_ok 30 no_card_by_hand || die "$I does not release the card"
  ip link del brlab0
}
no_card_by_hand() { ! c_card_by_hand; }

fault router-not-hosted - "the router is removed from its L3 agent and added to no other" "nothing: neutron reports the router as ACTIVE"
router_agent() { osc network agent list --router "$1" -f value -c ID; }
b_router_not_hosted() {
  osc router list -f value -c ID | head -1 | save router
  router_agent "$(saved router)" | save agent
  osc network agent remove router --l3 "$(saved agent)" "$(saved router)"
  until_ok 60 no_router_ns || die "the agent keeps the router's namespace"
  sleep 10 # neutron notes the status of its ports
  row "update neutron.standardattributes a join neutron.ports p on p.standard_attr_id = a.id
       set a.updated_at = utc_timestamp() - interval 5 minute where p.device_id = '$(saved router)'"
} # as if it had happened earlier
no_router_ns() { ! ip netns list | grep -q "qrouter-$(saved router)"; }
c_router_not_hosted() { [ -z "$(router_agent "$(saved router)")" ]; }
f_router_not_hosted() {
  ! c_router_not_hosted || osc network agent add router --l3 "$(saved agent)" "$(saved router)"
  until_ok 60 router_is_wired || die "the router's ports are not ACTIVE"
}
router_is_wired() {
  ! no_router_ns && [ "$(row "select count(*) from neutron.ports where device_id = '$(saved router)' and status <> 'ACTIVE'
                              and device_owner <> 'network:floatingip'")" = 0 ]
}

fault dhcp-server-gone vm-plain "dnsmasq of the guest's network has ended, and the DHCP agent does not watch it (check_child_processes_interval = 0)" "nothing until the DHCP agent starts again"
dnsmasq_pid() { pgrep -f "dnsmasq .*/dhcp/$(dhcp_ns | cut -c7-)/" || true; }
has_dnsmasq() { [ -n "$(dnsmasq_pid)" ]; }
b_dhcp_server_gone() {
  local p
  save dhcp_agent.ini </etc/neutron/dhcp_agent.ini
  printf '[AGENT]\ncheck_child_processes_interval = 0\n' >>/etc/neutron/dhcp_agent.ini
  "$LAB_DIR/systemctl" restart neutron-dhcp-agent
  sleep 15 # it ends and starts each dnsmasq when it starts
  until_ok 60 has_dnsmasq || die "the DHCP agent does not start dnsmasq"
  p=$(dnsmasq_pid); kill "$p"; until_ok 5 no_process "$p"
}
c_dhcp_server_gone() { ! has_dnsmasq; }
f_dhcp_server_gone() {
  cat "$S/dhcp_agent.ini" >/etc/neutron/dhcp_agent.ini
  "$LAB_DIR/systemctl" restart neutron-dhcp-agent
  until_ok 60 has_dnsmasq || die "the DHCP agent does not start dnsmasq"
}

fault security-rule-gone vm-plain "the OpenFlow rules that let TCP in to the guest are deleted; its security group allows TCP" "nothing until neutron's agent starts again"
b_security_rule_gone() { tap_number | save number; ovs-ofctl -O OpenFlow13 del-flows br-int "table=82,tcp,reg5=$(saved number)"; }
c_security_rule_gone() { ! tcp_passes; }
tcp_passes() { ovs-ofctl -O OpenFlow13 dump-flows br-int "table=82,tcp,reg5=$(saved number)" | has 'table='; }
f_security_rule_gone() {
  tcp_passes || "$LAB_DIR/systemctl" restart neutron-openvswitch-agent
  until_ok 60 tcp_passes || die "the agent did not write the rules of br-int again"
}

fault metadata-socket-gone - "the socket of the metadata agent was renamed, and the agent listens on" "nothing until the metadata agent starts again"
b_metadata_socket_gone() { mv /var/lib/neutron/metadata_proxy /var/lib/neutron/metadata_proxy.away; }
c_metadata_socket_gone() { [ ! -e /var/lib/neutron/metadata_proxy ]; }
f_metadata_socket_gone() {
  if c_metadata_socket_gone; then mv /var/lib/neutron/metadata_proxy.away /var/lib/neutron/metadata_proxy; fi
  rm -f /var/lib/neutron/metadata_proxy.away
}
