"""Features of a folder of audio, one file each."""
