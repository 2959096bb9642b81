"""Coordinated leader election: components say that they would lead, the API server chooses. KEP-4355."""
