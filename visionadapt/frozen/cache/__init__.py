"""Cache of features on disk, keyed by what they were computed from: the store, its index, and eviction."""
