"""Which processes, files and addresses of a host are trusted. Nothing is trusted by its name."""
