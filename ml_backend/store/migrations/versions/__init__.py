"""One module per revision; see the package above."""
