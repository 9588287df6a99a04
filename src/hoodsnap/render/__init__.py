"""Outputs, one file each. They are pure functions: a report goes in, text comes out."""
