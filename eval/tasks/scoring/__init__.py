"""Scores as SUPERB computes them, where s3prl's own evaluation stops short of them."""
