"""Features on disk under the identity of what they were computed from: the store, its index, and eviction."""
