"""All that knows prime-rl: where it is, how its config is resolved, which fields matter to us."""
