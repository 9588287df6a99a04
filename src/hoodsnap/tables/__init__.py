"""Tables of bundles, and the two languages that query them."""
