"""Views of the observations of the two servers in the configuration that people serve."""
