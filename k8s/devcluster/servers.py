"""Kubernetes' own servers: how each is called."""

import yaml

from k8s.devcluster.build import program
from k8s.devcluster.identities import PKI
from k8s.devcluster.settings import (
    NODE,
    NODE_IP,
    POD_NET,
    RUN,
    SERVICE_NET,
    kubeconfig,
)

AUDIT_LOG = RUN / "log" / "audit.log"
AUDIT_POLICY = {
    # Who asked for what, of those that are no part of the cluster: tests count it.
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:nodes"]},
        {
            "level": "None",
            "users": [
                "kueue",
                "kwok",
                "coredns",
                "kube-proxy",
                "system:apiserver",
                "system:kube-controller-manager",
                "system:kube-scheduler",
            ],
        },
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata"},
    ],
}
FAST_CLIENT = ("--kube-api-qps=300", "--kube-api-burst=600")
"""The defaults, 20 and 30, are for a cluster that is shared by many clients."""


def write() -> None:
    (RUN / "log").mkdir(parents=True, exist_ok=True)
    (RUN / "audit.yaml").write_text(yaml.safe_dump(AUDIT_POLICY))


def etcd() -> list[str]:
    return [
        program("etcd"), f"--data-dir={RUN / 'etcd'}", "--log-level=error",
        "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",  # what it holds is gone when the cluster goes down
    ]  # fmt: skip


def api_server() -> list[str]:
    return [
        program("kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={NODE_IP}",
        f"--tls-cert-file={PKI / 'tls.crt'}",
        f"--tls-private-key-file={PKI / 'tls.key'}",
        f"--token-auth-file={PKI / 'tokens.csv'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-cluster-ip-range={SERVICE_NET}",
        f"--service-account-key-file={PKI / 'sa.key'}",
        f"--service-account-signing-key-file={PKI / 'sa.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged=true",
        f"--audit-policy-file={RUN / 'audit.yaml'}",
        f"--audit-log-path={AUDIT_LOG}",
        "--audit-log-maxsize=200",
    ]


def controller_manager() -> list[str]:
    return [
        program("kube-controller-manager"),
        f"--kubeconfig={kubeconfig('system:kube-controller-manager')}",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={PKI / 'sa.key'}",
        f"--root-ca-file={PKI / 'ca.crt'}",
        "--bind-address=127.0.0.1",
        *FAST_CLIENT,
    ]


def scheduler() -> list[str]:
    return [
        program("kube-scheduler"), f"--kubeconfig={kubeconfig('system:kube-scheduler')}",
        "--leader-elect=false", "--bind-address=127.0.0.1", *FAST_CLIENT,
    ]  # fmt: skip


def kubelet() -> list[str]:
    return [
        program("kubelet"), f"--config={RUN / 'kubelet.yaml'}",
        f"--kubeconfig={kubeconfig(f'system:node:{NODE}')}", f"--root-dir={RUN / 'kubelet'}",
        f"--hostname-override={NODE}", f"--node-ip={NODE_IP}", f"--cert-dir={PKI}",
    ]  # fmt: skip


def proxy() -> list[str]:
    return [
        program("kube-proxy"), f"--kubeconfig={kubeconfig('kube-proxy')}",
        f"--hostname-override={NODE}", f"--cluster-cidr={POD_NET}", "--proxy-mode=iptables",
        "--conntrack-max-per-core=0", "--healthz-bind-address=127.0.0.1:10256",
        "--metrics-bind-address=127.0.0.1:10249",
    ]  # fmt: skip


def containerd() -> list[str]:
    return ["containerd", "-c", str(RUN / "containerd.toml")]


def coredns() -> list[str]:
    return [program("coredns"), "-conf", str(RUN / "Corefile")]
