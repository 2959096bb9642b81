"""The etcd engine: the store's contract over a real etcd cluster's gRPC API."""
