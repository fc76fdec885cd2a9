"""Reads checkpoint files, mostly without torch: headers, pairing, quantisation, the Hub."""
