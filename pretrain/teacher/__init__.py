"""What the teacher says: targets, groups of its layers, and their cache."""
