"""A Kubernetes of one machine, and a Mobula cluster in it."""
