"""Where results go: each to each destination once, and asked for before it is sent again."""
