"""From trial records to tables, plots and pages; `python -m runners.leaderboard`."""
