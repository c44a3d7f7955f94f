"""Training and measuring the networks of a simulation: `trainer`, over encoders that may be frozen, and measures."""
