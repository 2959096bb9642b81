"""The built-in kinds whose versions differ in more than their name."""
