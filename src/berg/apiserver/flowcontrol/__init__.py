"""API priority and fairness: how many requests of which kind may run at once, and who waits."""
