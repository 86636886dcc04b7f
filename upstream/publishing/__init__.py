"""Students for people who have PyTorch and transformers only: folders and repositories that `AutoModel` loads."""
