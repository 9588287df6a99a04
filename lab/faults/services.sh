# Faults: services. Sourced by faults.sh, which defines the functions used here.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034

fault compute-down - "nova-compute is stopped: the service goes down after service_down_time (60 s)" "the API still reports ACTIVE for its instances"
b_compute_down() { stop nova-compute; }
c_compute_down() { ! alive nova-compute; }
f_compute_down() { start_again nova-compute; }

fault compute-frozen - "nova-compute is SIGSTOPped: connected, but not working" "as compute-down"
b_compute_frozen() { kill -STOP "$(pid_of nova-compute)"; }
c_compute_frozen() { grep -q '^State:.*T' "/proc/$(pid_of nova-compute)/status"; }
f_compute_frozen() { kill -CONT "$(pid_of nova-compute)"; }

fault compute-disabled - "the compute service is administratively disabled" "the scheduler avoids the host"
b_compute_disabled() { osc compute service set --disable --disable-reason "lab fault" "$LAB_HOST" nova-compute; }
c_compute_disabled() { [ "$(row "select disabled from nova.services where \`binary\`='nova-compute' and deleted=0 limit 1")" = 1 ]; }
f_compute_disabled() { osc compute service set --enable "$LAB_HOST" nova-compute; }

fault conductor-down - "nova-conductor is stopped" "API calls that change something time out"
b_conductor_down() { stop nova-conductor; }
c_conductor_down() { ! alive nova-conductor; }
f_conductor_down() { start_again nova-conductor; }

fault ovs-agent-down - "neutron-openvswitch-agent is stopped" "new ports do not get wired"
b_ovs_agent_down() { stop neutron-openvswitch-agent; }
c_ovs_agent_down() { ! alive neutron-openvswitch-agent; }
f_ovs_agent_down() { start_again neutron-openvswitch-agent; }

fault dhcp-agent-down - "neutron-dhcp-agent is stopped (recorded before neutron notices)" "guests that start or renew their address get none; neutron reports the agent as alive for 75 s"
b_dhcp_agent_down() { stop neutron-dhcp-agent; }
c_dhcp_agent_down() { ! alive neutron-dhcp-agent; }
f_dhcp_agent_down() { start_again neutron-dhcp-agent; }

fault dhcp-agent-stopped - "neutron-dhcp-agent is SIGSTOPped: connected, but not working" "neutron reports the agent as alive for 75 s"
b_dhcp_agent_stopped() { kill -STOP "$(pid_of neutron-dhcp-agent)"; }
c_dhcp_agent_stopped() { grep -q '^State:.*T' "/proc/$(pid_of neutron-dhcp-agent)/status"; }
f_dhcp_agent_stopped() { kill -CONT "$(pid_of neutron-dhcp-agent)"; }

fault l3-agent-silent - "the L3 agent runs, but reports to neutron once an hour, as with a wrong report_interval" "neutron reports the agent as down after 75 s"
l3_agent_died() { [ "$(row "select heartbeat_timestamp < utc_timestamp() - interval 5 minute from neutron.agents where \`binary\` = 'neutron-l3-agent' and host = '$LAB_HOST'")" = 1 ]; }
b_l3_agent_silent() {
  save l3_agent.ini </etc/neutron/l3_agent.ini
  printf '[AGENT]\nreport_interval = 3600\n' >>/etc/neutron/l3_agent.ini
  stop neutron-l3-agent
  start_again neutron-l3-agent
  sleep 15 # it reports when it starts
  row "update neutron.agents set heartbeat_timestamp = utc_timestamp() - interval 10 minute where \`binary\` = 'neutron-l3-agent' and host = '$LAB_HOST'"
}
c_l3_agent_silent() { grep -q "^report_interval = 3600" /etc/neutron/l3_agent.ini; }
f_l3_agent_silent() {
  cat "$S/l3_agent.ini" >/etc/neutron/l3_agent.ini
  stop neutron-l3-agent
  start_again neutron-l3-agent
  until_ok 60 eval '! l3_agent_died'
}

beam() { pgrep -x beam.smp | head -1; }
reports_again() { [ "$(row "select count(*) from neutron.agents where heartbeat_timestamp < utc_timestamp() - interval 70 second and host = '$LAB_HOST'")" = 0 ] && [ "$(row "select count(*) from nova.services where last_seen_up < utc_timestamp() - interval 50 second and \`binary\`='nova-compute' and deleted=0")" = 0 ]; }
fault queue-frozen - "RabbitMQ hangs (SIGSTOP): connected, but answers nothing" "all services of the host go down after a minute, while their processes run"
b_queue_frozen() { kill -STOP "$(beam)"; }
c_queue_frozen() { grep -q '^State:.*T' "/proc/$(beam)/status"; }
f_queue_frozen() { kill -CONT "$(beam)"; until_ok 120 reports_again; }

fault placement-down - "placement-api is stopped" "boots, resizes and inventory updates fail"
b_placement_down() { stop placement-api; }
c_placement_down() { ! alive placement-api; }
f_placement_down() { start_again placement-api; wait_port placement-api 8778; }

fault libvirt-lost - "nova loses libvirt (the lab's libvirtd, or the relay to another one, is stopped)" "the compute service is disabled automatically, and enabled again when libvirt is back"
lv() { if alive libvirtd; then echo libvirtd; else echo libvirt-relay; fi; }
b_libvirt_lost() { lv | save which; stop "$(saved which)"; }
c_libvirt_lost() { ! alive "$(saved which)"; }
f_libvirt_lost() { start_again "$(saved which)"; thaw; nova_has_libvirt; }

fault api-down - "nova-api is stopped" "no API request works; guests keep running"
b_api_down() { stop nova-api; }
c_api_down() { ! alive nova-api; }
f_api_down() { start_again nova-api; wait_port nova-api 8774; }

fault db-down - "MariaDB is stopped" "API calls fail; nova-compute cannot save states; all services reconnect later"
b_db_down() { stop mariadb; }
c_db_down() { ! alive mariadb; }
f_db_down() { start_again mariadb; wait_port mariadb 3306; }

fault service-clock-ahead - "nova-compute's reports are an hour in the future, as with a conductor whose clock is ahead" "the API counts the service as down"
b_service_clock_ahead() {
  row "create trigger nova.lab_ahead before update on nova.services for each row set new.last_seen_up = if(new.\`binary\` = 'nova-compute' and new.report_count > old.report_count, utc_timestamp() + interval 1 hour, new.last_seen_up)"
  until_ok 40 c_service_clock_ahead
}
c_service_clock_ahead() { [ "$(row "select count(*) from nova.services where \`binary\`='nova-compute' and deleted=0 and last_seen_up > utc_timestamp() + interval 50 minute")" = 1 ]; }
f_service_clock_ahead() {
  row "drop trigger if exists nova.lab_ahead"
  until_ok 40 compute_ready
}

conf_set() { # OPTION VALUE: in nova.conf, while nova-compute keeps running with the old one
  sed -i "s/^$1 *=.*/$1 = $2/" /etc/nova/nova.conf
}
fault conf-address - "my_ip in nova.conf was changed, and nova-compute was not restarted" "nothing until the next start; migrations then use the other address"
b_conf_address() { save nova.conf </etc/nova/nova.conf; conf_set my_ip 192.0.2.77; }
c_conf_address() { grep -q '^my_ip *= *192.0.2.77' /etc/nova/nova.conf; }
f_conf_address() { cat "$S/nova.conf" >/etc/nova/nova.conf; }

compute_conf=/etc/nova/nova-compute.conf
keep_compute_conf() { stat -c '%U:%G %a' "$compute_conf" | save mode; save conf <"$compute_conf"; }
give_compute_conf() { local owner mode; read -r owner mode <"$S/mode"; cat "$S/conf" >"$compute_conf"; chown "$owner" "$compute_conf"; chmod "$mode" "$compute_conf"; }
fault conf-closed - "nova-compute.conf belongs to root with mode 600, and nova-compute was not restarted" "nothing; its next start fails"
b_conf_closed() { keep_compute_conf; chown root:root "$compute_conf"; chmod 600 "$compute_conf"; }
c_conf_closed() { [ "$(stat -c '%G %a' "$compute_conf")" = "root 600" ]; }
f_conf_closed() { give_compute_conf; }

nova_log=/var/log/nova/nova-compute.log
fault log-not-writable - "nova-compute's log file belongs to root, as after a start by root, and nova-compute was not restarted" "nothing; its next start fails"
b_log_not_writable() { stat -c '%U:%G %a' "$nova_log" | save mode; chown root:root "$nova_log"; chmod 640 "$nova_log"; }
c_log_not_writable() { [ "$(stat -c '%U %a' "$nova_log")" = "root 640" ]; }
f_log_not_writable() { local owner mode; read -r owner mode <"$S/mode"; chown "$owner" "$nova_log"; chmod "$mode" "$nova_log"; }

fault conf-broken-line - "nova-compute.conf has a line without = (a merge conflict), and nova-compute was not restarted" "nothing; its next start fails"
b_conf_broken_line() { keep_compute_conf; echo '<<<<<<< HEAD' >>"$compute_conf"; }
c_conf_broken_line() { grep -q '^<<<<<<<' "$compute_conf"; }
f_conf_broken_line() { give_compute_conf; }

fault conf-virt-type - "virt_type in nova-compute.conf was changed to kvm, and nova-compute was not restarted" "nothing; the next stop and start of a guest fails"
b_conf_virt_type() { keep_compute_conf; sed -i 's/^virt_type *=.*/virt_type = kvm/' "$compute_conf"; }
c_conf_virt_type() { grep -q '^virt_type = kvm' "$compute_conf"; }
f_conf_virt_type() { give_compute_conf; }

fault conf-listen - "vnc server_listen in nova.conf was changed while guests run" "guests keep the old address until they are defined again"
b_conf_listen() { save nova.conf </etc/nova/nova.conf; conf_set server_listen 192.0.2.78; }
c_conf_listen() { grep -q '^server_listen *= *192.0.2.78' /etc/nova/nova.conf; }
f_conf_listen() { cat "$S/nova.conf" >/etc/nova/nova.conf; }

fault second-nova-compute - "a second nova-compute was started by hand beside the first" "requests for this host reach one of the two at random"
b_second_nova_compute() { start nova-compute-2 nova /usr/bin/nova-compute --config-file /etc/nova/nova.conf --config-file /etc/nova/nova-compute.conf; sleep 8; }
c_second_nova_compute() { alive nova-compute && alive nova-compute-2; }
f_second_nova_compute() { stop nova-compute-2; rm -f "$RUN/nova-compute-2.cmd"; }

fault umask-closed - "nova-compute was started with umask 077" "nothing for the guests that run; the next one does not start"
b_umask_closed() {
  stop nova-compute
  (umask 077 && UMASK=077 start_again nova-compute)
  until_ok 60 compute_ready || die "nova-compute did not come up (log: $LOG/nova-compute.log)"
}
c_umask_closed() { grep -q '^Umask:.*077$' "/proc/$(cut -d' ' -f1 "$RUN/nova-compute.pid")/status"; }
f_umask_closed() { stop nova-compute && start_again nova-compute && until_ok 60 compute_ready; }
