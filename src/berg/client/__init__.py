"""What a Kubernetes client library gives: requests, informers, work queues, leader election, events."""
