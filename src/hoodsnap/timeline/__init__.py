"""Everything with a time in a bundle, in one order."""
