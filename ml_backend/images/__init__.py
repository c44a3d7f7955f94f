"""Images of tasks: fetched from where they are, decoded, and kept in a cache."""
