"""OpenAPI documents, v2 and v3, written from the schema bundle and the table of resources."""
