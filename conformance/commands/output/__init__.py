"""What subcommands share to print and to write."""
