"""Who may ask the API server: certificates for the servers, tokens and kubeconfigs for the users."""

import secrets
import subprocess

import yaml

from components.errors import InfraError
from k8s.devcluster.settings import API, API_SERVICE, NODE, NODE_IP, RUN, kubeconfig

PKI = RUN / "pki"
USERS = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    f"system:node:{NODE}": "system:nodes",
    "kueue": "",
    "coredns": "system:masters",
    "kwok": "system:masters",
    "kube-proxy": "system:masters",
}
"""User: group. Access control is on, so the others have the rights of their roles alone."""


def write() -> None:
    """One authority, one certificate for all servers, a key for service accounts, a token for each user."""
    PKI.mkdir(parents=True, exist_ok=True)
    names = [f"IP:{NODE_IP}", f"IP:{API_SERVICE}", "IP:127.0.0.1", "DNS:localhost", f"DNS:{NODE}"]
    names.append("DNS:kubernetes.default.svc")
    (PKI / "names").write_text(f"subjectAltName={','.join(names)}\n")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    _openssl("req", "-x509", *new_key, "-days", "3650", "-subj", "/CN=headrace-dev",
             "-keyout", "ca.key", "-out", "ca.crt")  # fmt: skip
    _openssl("req", *new_key, "-subj", f"/CN={NODE}", "-keyout", "tls.key", "-out", "tls.csr")
    _openssl("x509", "-req", "-in", "tls.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
             "-CAcreateserial", "-days", "3650", "-extfile", "names", "-out", "tls.crt")  # fmt: skip
    _openssl("genrsa", "-out", "sa.key", "2048")
    tokens = {user: secrets.token_hex(20) for user in USERS}
    lines = [f'{tokens[user]},{user},{user},"{group}"\n' for user, group in USERS.items()]
    _private("pki/tokens.csv", "".join(lines))
    for user, token in tokens.items():
        _private(str(kubeconfig(user).relative_to(RUN)), yaml.safe_dump(_config(user, token)))


def _config(user: str, token: str) -> dict[str, object]:
    cluster = {"server": API, "certificate-authority": str(PKI / "ca.crt")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "dev",
        "clusters": [{"name": "dev", "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": user}}],
    }


def _private(name: str, text: str) -> None:
    path = RUN / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _openssl(*arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], cwd=PKI, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InfraError(f"openssl {arguments[0]}: {done.stderr.strip()}", "see its manual")
