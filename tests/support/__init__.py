"""What several tests need: folders, stand-ins for the host, documents of a healthy run."""
