"""The same work done with other libraries, each as its documentation shows."""
