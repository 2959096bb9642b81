"""The service proxy: keeps the kernel's rules in step with Services and EndpointSlices."""
