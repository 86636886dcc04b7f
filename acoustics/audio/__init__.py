"""Audio files: reading, listing, and collections of recordings."""
