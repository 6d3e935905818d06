"""A kit for a GPU machine that is lent for half an hour: README.md has the plan."""
