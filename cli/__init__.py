"""Commands: each parses what is typed, calls a function of a room and prints."""
