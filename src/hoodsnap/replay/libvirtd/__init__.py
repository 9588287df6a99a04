"""A stand-in for libvirtd, which speaks its RPC protocol."""
