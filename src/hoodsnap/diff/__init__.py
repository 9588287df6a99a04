"""Changes between two bundles of one cloud: servers, hosts and findings."""
