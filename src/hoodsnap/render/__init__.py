"""One file per output. Pure: a report goes in, text comes out."""
