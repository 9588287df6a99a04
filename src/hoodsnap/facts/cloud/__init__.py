"""Facts that need more than one layer: guests, hosts, the cloud, and relations between them."""
