"""Signature: an OpenSSH signature of a bundle's fingerprint, which tells who vouches for it.

Every host has ssh-keygen, and most people have a key. Only one line is signed, the fingerprint. So
a signed bundle can be compressed again, and ssh-keygen alone can check a signature by hand.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

NAMESPACE = "hoodsnap"
"""Namespace of the signatures (`ssh-keygen -n`). Signatures for mail or git are not accepted."""

LONGEST = 1 << 16
"""Largest number of characters in a signature. Those of the largest keys have a few thousand."""

PATIENCE = 60.0
"""Seconds that ssh-keygen may take to check a signature. Signing has no limit, because it waits for
a passphrase."""


class SshKeygenError(Exception):
    """ssh-keygen is not installed, or failed. The text is the reason."""


class NotTrustedError(Exception):
    """No allowed signer made this signature for this fingerprint. The text is the reason."""


def sign(fingerprint: str, key: Path) -> str:
    """Return an armored signature of a fingerprint, made with a private key.

    With a public key, the matching private key in ssh-agent signs. Raises `SshKeygenError`.
    """
    command = ["-Y", "sign", "-f", str(key), "-n", NAMESPACE]
    done = _ssh_keygen(command, _statement(fingerprint), patience=None)
    if done.returncode != 0:
        raise SshKeygenError(_complaint(done))
    return done.stdout


def signer(fingerprint: str, signature: object, allowed: Path) -> str:
    """Return the allowed signer who made this signature of this fingerprint.

    Raises `NotTrustedError` if no signer in the file `allowed` made it, or if it covers something
    else, and `SshKeygenError` if ssh-keygen can't check it.
    """
    if not isinstance(signature, str) or len(signature) > LONGEST:
        raise NotTrustedError("its signature can't be read")
    with tempfile.TemporaryDirectory(prefix="hoodsnap-") as folder:
        file = Path(folder) / "signature"
        file.write_text(signature, errors="replace")
        common = ["-f", str(allowed), "-s", str(file)]
        found = _ssh_keygen(["-Y", "find-principals", *common], "", patience=PATIENCE)
        if found.returncode != 0:
            raise NotTrustedError(f"its signer is not listed in {allowed}: {_complaint(found)}")
        for name in found.stdout.replace(",", "\n").split():
            command = ["-Y", "verify", "-n", NAMESPACE, "-I", name, *common]
            statement = _statement(fingerprint)
            if _ssh_keygen(command, statement, patience=PATIENCE).returncode == 0:
                return name
    raise NotTrustedError("its signature is for another bundle or another purpose")


def require_ssh_keygen() -> None:
    """Raise `SshKeygenError` if ssh-keygen is not installed: check before an hour of collecting."""
    import shutil

    if shutil.which("ssh-keygen") is None:
        raise SshKeygenError("ssh-keygen is not installed")


def _statement(fingerprint: str) -> str:
    return f"{fingerprint}\n"


def _ssh_keygen(
    arguments: Sequence[str], text: str, patience: float | None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["ssh-keygen", *arguments],
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            env=os.environ | {"LC_ALL": "C"},
            timeout=patience,
        )
    except FileNotFoundError:
        raise SshKeygenError("ssh-keygen is not installed") from None
    except subprocess.TimeoutExpired:
        raise SshKeygenError(f"ssh-keygen did not finish within {patience:g} s") from None


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else f"exit status {done.returncode}"
