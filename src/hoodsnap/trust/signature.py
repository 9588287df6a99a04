"""Who stands behind a bundle: an OpenSSH signature of its fingerprint.

Every host has ssh-keygen, and everybody has a key. What is signed is one line, the fingerprint; so
a signed bundle may be packed anew, and the signature is checked by hand with ssh-keygen alone.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

NAMESPACE = "hoodsnap"
"""What a signature is for. One that was made for mail or for git is none of ours."""

LONGEST = 1 << 16
"""Characters of a signature. Those of the largest keys have some thousands."""

PATIENCE = 60.0
"""Seconds for ssh-keygen to check; to sign it has as long as it takes to type a passphrase."""


class SshKeygenError(Exception):
    """ssh-keygen is not there, or can't do what it was told. The text says why."""


class NotTrustedError(Exception):
    """The signature is none of an allowed signer's for this fingerprint. The text says why."""


def sign(fingerprint: str, key: Path) -> str:
    """An armored signature of a fingerprint by a private key, or by the agent's if it is a public
    one."""
    command = ["-Y", "sign", "-f", str(key), "-n", NAMESPACE]
    done = _ssh_keygen(command, _statement(fingerprint), patience=None)
    if done.returncode != 0:
        raise SshKeygenError(_complaint(done))
    return done.stdout


def signer(fingerprint: str, signature: object, allowed: Path) -> str:
    """Whom of the allowed signers the signature of this fingerprint is by.

    Raises `NotTrustedError` if it is by nobody in that file or of something else.
    """
    if not isinstance(signature, str) or len(signature) > LONGEST:
        raise NotTrustedError("its signature can't be read")
    with tempfile.TemporaryDirectory(prefix="hoodsnap-") as folder:
        file = Path(folder) / "signature"
        file.write_text(signature, errors="replace")
        common = ["-f", str(allowed), "-s", str(file)]
        found = _ssh_keygen(["-Y", "find-principals", *common], "", patience=PATIENCE)
        if found.returncode != 0:
            raise NotTrustedError(f"its signature is by nobody in {allowed}: {_complaint(found)}")
        for name in found.stdout.replace(",", "\n").split():
            command = ["-Y", "verify", "-n", NAMESPACE, "-I", name, *common]
            statement = _statement(fingerprint)
            if _ssh_keygen(command, statement, patience=PATIENCE).returncode == 0:
                return name
    raise NotTrustedError("its signature is of another bundle, or was made for something else")


def require_ssh_keygen() -> None:
    """Raises `SshKeygenError` if there is none: better before an hour's collecting than after."""
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
        raise SshKeygenError(f"ssh-keygen did not end within {patience:g} s") from None


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else f"exit status {done.returncode}"
