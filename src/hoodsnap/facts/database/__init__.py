"""What the nova databases hold: a table a file."""
