"""One YAML per SUPERB task with the vocabularies it needs, and the test conditions (package data)."""
