"""What needs more than one layer: guests, hosts, the whole cloud, and the relations between
them."""
