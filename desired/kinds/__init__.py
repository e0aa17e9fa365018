"""One module per family of kinds, holding the specs only: what a user may write."""
