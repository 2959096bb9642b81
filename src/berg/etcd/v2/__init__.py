"""etcd's v2 API: a tree of directories and files beside the v3 keys, over HTTP."""
