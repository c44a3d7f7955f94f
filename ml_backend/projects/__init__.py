"""One connected project: its settings, its state, and its registration in Label Studio."""
