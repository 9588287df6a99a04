"""Lab sheets, and the grading of bundles by them, without access to the lab."""
