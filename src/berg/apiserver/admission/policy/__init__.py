"""Admission policies: CEL expressions that refuse or change what is written."""
