"""Names of benchmarks in, their figures printed and recorded out: ``make bench``."""

from __future__ import annotations

import argparse
import subprocess
import sys

QUICK: dict[str, tuple[str, ...]] = {
    "decoder": (),
    "proof_levels": ("--blocks", "50", "--rounds", "2"),
    "seal": (),
    "logs_only": ("--blocks", "1000"),
    "full_job": ("--blocks", "1000"),
    "head_latency": ("--blocks", "30"),
    "views": ("--millions", "2"),
    "process_role": ("--segments", "500"),
    "cluster_job": ("--blocks", "1000"),
    "cluster_head": ("--blocks", "30"),
    "recovery": ("--kills", "2"),
    "start_up": (),
    "insert_cost": (),
    "visible_loads": ("--depths", "64", "900"),
}
"""Every benchmark, and what makes it a look of a minute instead of the claim's size."""


def main() -> int:
    """Run the named benchmarks, or all, one after the other, each in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(QUICK))
    parser.add_argument("--quick", action="store_true", help="small sizes: no claim is tested")
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(QUICK))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    failed = []
    for name in given.names or QUICK:
        sizes = QUICK[name] if given.quick else ()
        print(f"==> {name} {' '.join(sizes)}", flush=True)
        if subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *sizes], check=False
        ).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
