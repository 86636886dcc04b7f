"""From folders of audio to batches of clean and corrupted speech."""
