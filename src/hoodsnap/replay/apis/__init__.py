"""Stand-ins for the OpenStack APIs, on one HTTP server."""
