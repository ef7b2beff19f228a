"""A real Kubernetes node on this machine: containerd, kubelet, kube-proxy, and names."""
