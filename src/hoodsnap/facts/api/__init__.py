"""Facts from the OpenStack APIs: nova, placement, neutron and cinder."""
