"""Features cached on disk by the identity of their inputs: the store, its index, and eviction."""
