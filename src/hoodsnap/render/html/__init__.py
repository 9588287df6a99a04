"""The report as one page for a browser: no network, no server, nothing but the file."""
