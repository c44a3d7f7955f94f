"""What a trained network says of images: masks, and batches for a strategy."""
