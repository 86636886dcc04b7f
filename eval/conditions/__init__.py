"""What is heard: test conditions, what they draw from, and the loaders that corrupt."""
