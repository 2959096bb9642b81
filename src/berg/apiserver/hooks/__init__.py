"""What a server makes sure of once it runs: namespaces, roles, priority classes, the `kubernetes` service."""
