"""The leaderboard as one page that opens offline."""
