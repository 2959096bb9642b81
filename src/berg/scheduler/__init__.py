"""The scheduler: which node a pod goes to.

- `state/` is what is known of the cluster, in columns: nodes are rows of numpy arrays (`snapshot`), pods are parsed
  once per template (`podinfo`), pods that selectors ask for are counted as they come and go (`counters`).
- `framework/` is upstream's scheduling framework over these columns: extension points, profiles, the run of one
  cycle, and the cache by which pods of one template share work.
- `plugins/` has one file per plugin.
- `algorithm` and `preemption` decide; they do no I/O. `queue` orders what waits.
- `scheduler` and its neighbours `handlers`, `binding` have the effects: informers in, bindings, events and
  conditions out.

Only this package imports numpy.
"""
