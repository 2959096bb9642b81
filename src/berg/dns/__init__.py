"""Cluster DNS: the names of services and pods from informers, everything else from the machine's resolvers."""
