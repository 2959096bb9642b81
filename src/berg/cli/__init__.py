"""The `berg` command."""
