"""The scheduling framework: interface, plugins of a profile, one cycle."""
