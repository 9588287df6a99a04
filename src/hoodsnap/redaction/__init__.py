"""Replace the names in a bundle by pseudonyms that keep every relation."""
