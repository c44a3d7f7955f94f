"""Networks, their training, their versions on disk, their predictions, and rankings of images."""
