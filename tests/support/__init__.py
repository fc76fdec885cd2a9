"""What several tests need and no negative control is: folders, stand-ins for the host, documents of a healthy run."""
