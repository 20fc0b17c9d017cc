"""The contract suites, and the lab's whole estate, against software that nobody here wrote. Runs only with --e2e.

    RECONCILER_E2E_CRDS=FOLDER pytest --e2e tests/e2e -n 2 --dist loadfile

Needs: go (1.24 or newer, with a module proxy for the first build), git with git-http-backend, openssh-server (`sshd`), and in
RECONCILER_E2E_CRDS the CustomResourceDefinitions of KubeVirt, CDI, Multus and Forklift, one a file. For the image: root, podman, runc,
debootstrap, a Debian mirror and a Python package index.
Built programs are kept in RECONCILER_E2E_CACHE (default ~/.cache/reconciler-e2e) by the hash of their sources; the first build of the
Kubernetes control plane takes minutes, later runs seconds; the image takes one to three minutes, then what its changed layers take.
Where something is missing the tests fail if CI is "true", else they skip and say what. Everything listens on loopback on free ports (a pod
of the image on 8080), and is stopped at the end of the session, after failures too.

    control_plane.py  etcd, kube-apiserver, kube-controller-manager      proxy.py  faults at the wire, in front of any of the servers
    node.py, volumes.py, virt.py  what a cluster has besides: kubelet and scheduler, provisioner, KubeVirt's controllers
    vcsim/  govmomi's vCenter simulator with our main                    parts.py  building and missing things
    vddk/  a stand-in for VMware's library, for nbdkit's plugin; for whole runs it asks the lab (tests/contract/vddk_site.py)
           Needs nbdkit, qemu-utils, gcc, and Debian 13's nbdkit-plugin-vddk (by apt)
    image/build  the image, on a base of debootstrap's                   pod.py  a pod template, run from the image by podman
"""
