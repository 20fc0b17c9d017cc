"""A simulated Kubernetes cluster at the wire: API server, controllers, kubelet and KubeVirt, on loopback.

What it is: the target site of the lab; real clients talk to it over TLS, and its Jobs run as local processes.
What it is not: a port of Kubernetes; only the kinds and rules that a VM migration meets.
"""
