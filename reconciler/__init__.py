"""Virtual machine migration by pull request: a GitOps reconciler for KubeVirt."""

__version__ = "0.1.0"
