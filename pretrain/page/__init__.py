"""A distillation run as one page that opens offline."""
