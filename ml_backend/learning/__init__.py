"""Networks: their training, their versions on disk, their predictions, and the ranking made from those."""
