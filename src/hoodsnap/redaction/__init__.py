"""Redaction: replace the names in a bundle with pseudonyms that keep every relation."""
