"""Admission webhooks: which are called for a request, calling them, and what they answer."""
