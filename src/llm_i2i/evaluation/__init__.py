"""The evaluation protocol, metrics and intervals."""
