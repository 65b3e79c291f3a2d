"""The server's edge: resolution of the pattern at start, `/index_cache`, and what is refused."""
