"""Lab sheets, and what a bundle is worth by one: grading without access to the lab."""
