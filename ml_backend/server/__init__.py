"""The HTTP server: what Label Studio calls."""
