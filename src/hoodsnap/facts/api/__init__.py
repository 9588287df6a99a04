"""What the OpenStack APIs returned: nova, placement, neutron and cinder."""
