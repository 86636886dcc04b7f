"""Groups of similar teacher layers."""
