"""What a PodSpec means to the API server, wherever one stands: in a pod or in a workload's template.

`defaults` fills it in, `validation` checks it whole; the other rooms hold one idea each (containers, volumes,
security, scheduling, …).
"""
