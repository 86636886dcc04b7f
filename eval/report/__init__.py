"""Measured and published systems side by side: tables, plots, comparisons, one page."""
