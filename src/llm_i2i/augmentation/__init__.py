"""The method: which pairs are added, and which are kept."""
