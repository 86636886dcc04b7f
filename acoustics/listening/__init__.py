"""Speech under conditions as one page to look at and listen to, which opens offline."""
