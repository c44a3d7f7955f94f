"""Predictions of trained networks: masks, and batches for strategies."""
