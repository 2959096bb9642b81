"""CustomResourceDefinitions: their own validation, and serving what they define."""
