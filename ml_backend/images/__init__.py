"""Images of tasks: references, allowed hosts, decoding, and a cache on disk."""
