"""Whether an upstream works on every SUPERB task, tried on toy corpora and compared with stock s3prl."""
