"""The one real node: containerd and kubelet without a container engine's help."""

import json
import subprocess
from pathlib import Path

import yaml

from components.errors import InfraError
from k8s.devcluster import image
from k8s.devcluster.build import program
from k8s.devcluster.identities import PKI
from k8s.devcluster.settings import (
    CONTAINERD,
    CTR,
    IMAGES,
    MOUNTS,
    NODE_IP,
    POD_NET,
    RUN,
    SOCKETS,
    kubeconfig,
)

CONTAINERD_CONFIG = f"""\
version = 2
root = "{RUN}/containerd"
state = "{SOCKETS}/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGES[0]}"
  restrict_oom_score_adj = true  # for a root without CAP_SYS_RESOURCE
  disable_apparmor = true
  netns_mounts_under_state_dir = true  # where they are found when all goes down
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{RUN}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      base_runtime_spec = "{RUN}/container.json"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""

KUBELET_CONFIG = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "address": NODE_IP,
    "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
    "cgroupDriver": "cgroupfs",
    "failSwapOn": False,
    "resolvConf": "",
    "clusterDNS": [NODE_IP],
    "clusterDomain": "cluster.local",
    "nodeStatusUpdateFrequency": "2s",
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},  # nobody else is in its network
    "evictionHard": {
        "memory.available": "100Mi",
        "nodefs.available": "1%",
        "imagefs.available": "1%",
    },
    "imageGCHighThresholdPercent": 100,
    "maxPods": 110,
    "tlsCertFile": str(PKI / "tls.crt"),
    "tlsPrivateKeyFile": str(PKI / "tls.key"),
}

CNI_CONFIG = {
    "cniVersion": "0.4.0",
    "name": "headrace-dev",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": f"{RUN}/addresses",
                "ranges": [[{"subnet": POD_NET}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}

# The node's address: what a pod asks, and what answers for the cluster's names alone.
COREFILE = f"""\
.:53 {{
    bind {NODE_IP}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig("coredns")} dev
        ttl 0
    }}
}}
"""


def write() -> None:
    (RUN / "cni").mkdir(parents=True, exist_ok=True)
    (RUN / "containerd.toml").write_text(CONTAINERD_CONFIG)
    (RUN / "kubelet.yaml").write_text(yaml.safe_dump(KUBELET_CONFIG))
    (RUN / "cni" / "10-headrace.conflist").write_text(json.dumps(CNI_CONFIG))
    (RUN / "Corefile").write_text(COREFILE)
    (RUN / "container.json").write_text(json.dumps(_container_spec()))
    image.write(RUN / "image.tar", IMAGES, Path(program("pause")))


def _container_spec() -> dict[str, object]:
    """containerd's own default for a container, and this machine's programs bound in, read-only."""
    spec = json.loads(_run(["ctr", "oci", "spec"]))
    spec["mounts"] += [
        {
            "destination": str(there),
            "type": "bind",
            "source": str(here),
            "options": ["rbind", "ro"],
        }
        for here, there in MOUNTS.items()
    ]
    return dict(spec)


def import_image() -> None:
    _run([*CTR, "images", "import", str(RUN / "image.tar")])


def end_containers() -> int:
    """SIGKILL every container that containerd knows; how many there were."""
    names = _run([*CTR, "tasks", "ls", "-q"]).split()
    for name in names:
        subprocess.run(
            [*CTR, "tasks", "kill", "-s", "SIGKILL", name], capture_output=True, check=False
        )
        subprocess.run([*CTR, "tasks", "delete", "-f", name], capture_output=True, check=False)
    return len(names)


def is_containerd_ready() -> bool:
    return subprocess.run([*CTR, "version"], capture_output=True, check=False).returncode == 0


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InfraError(f"{' '.join(command)}: {done.stderr.strip()}", f"see {RUN / 'log'}")
    return done.stdout
