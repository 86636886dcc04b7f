"""The network: a speech encoder and its shapes. Knows no files and no s3prl."""
