"""What s3prl sees: the upstream interface, the named entries, and the bridge that lets unchanged s3prl run here."""
