"""What all pages share: one HTML file each, which opens offline, in one look."""
