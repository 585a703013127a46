"""Tools that decide what serves: replicate, gate, promote."""
