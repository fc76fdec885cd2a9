"""The folder that holds what one run saw: written once, hashed, redacted, signed."""
