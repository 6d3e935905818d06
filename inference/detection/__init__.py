"""Which marks a file carries, and whether it sounds like ours."""
