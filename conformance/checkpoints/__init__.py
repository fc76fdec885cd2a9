"""What lies in checkpoint files, read without torch: headers, pairing, quantisation, the Hub."""
