"""What is run: sweep, train, leaderboard, benchmark."""
