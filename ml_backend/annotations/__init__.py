"""What people draw: annotations and labelling configurations, read into masks and written from them."""
