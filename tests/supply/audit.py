"""Known vulnerabilities of what an installation brings: `pip-audit`, told apart from a network that is not there.

    python tests/supply/audit.py ENVIRONMENT        # the folder of a virtual environment

Status 0: nothing known, or the database could not be reached, which is said; 1: something is known.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SERVICES = ("pypi", "osv")
"""Databases, asked in this order until one answers."""
SECONDS = 300


def audited(site_packages: Path, service: str) -> tuple[list[str], list[str]] | None:
    """Return what a database knows of the packages of a folder, a line each, and the packages that it has nothing on.

    None where it did not answer, or has none of them.
    """
    command = ["pip-audit", "--path", str(site_packages), "--vulnerability-service", service, "--format", "json"]
    try:
        done = subprocess.run(
            [*command, "--progress-spinner", "off"], capture_output=True, text=True, timeout=SECONDS, check=False
        )
        found = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return None
    skipped = [one["name"] for one in found["dependencies"] if "skip_reason" in one]
    known = [f"{one['name']} {one['version']}: {bad['id']}" for one in found["dependencies"] for bad in one.get("vulns", ())]
    return (known, skipped) if len(skipped) < len(found["dependencies"]) else None


def main(environment: str) -> int:
    (site_packages,) = Path(environment).glob("lib/python*/site-packages")
    for service in SERVICES:
        answered = audited(site_packages, service)
        if answered is None:
            print(f"{service}: not reached, so nothing was asked there")
            continue
        known, skipped = answered
        print("\n".join(known) or f"{service}: nothing is known of what is installed")
        if skipped:
            print(f"{service}: not asked about {', '.join(skipped)}")
        return 1 if known else 0
    print("no database was reached: nothing is known, nothing is proven")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
