"""etcd's v3 messages (`rpc.proto`, compiled by tools/build_protos.py)."""
