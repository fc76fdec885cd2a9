"""The command ``qualify``: one module for each subcommand."""
