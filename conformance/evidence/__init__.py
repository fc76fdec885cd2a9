"""Evidence: the folder with the observations of one run, written once, redacted, hashed and signed."""
