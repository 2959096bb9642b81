"""A cluster's life on one machine: directories, certificates, supervised processes, up and down."""
