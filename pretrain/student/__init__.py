"""The student: built from its teacher, or pruned from it."""
