"""What each run is watched by: its facts, kept in git, against those of the runs before it."""
