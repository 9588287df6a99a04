"""The seal of a shell: namespaces, files, terminal and system calls that keep the host out."""
