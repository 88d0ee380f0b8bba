"""Failures of the cluster on one machine: HR-65xx."""

from __future__ import annotations

from schemas.errors import Permanent


class LocalInUse(Permanent):
    """A cluster runs in the directory."""

    code = "HR-6501"
    what = "the cluster in {path} is already up (process {pid})"
    why = "one directory holds one cluster"
    fix = "see `headrace local status`, end it with `headrace local down`, or choose another --dir"


class LocalNotUp(Permanent):
    """No cluster runs in the directory."""

    code = "HR-6502"
    what = "no cluster is up in {path}"
    why = "it was not started, or it has ended"
    fix = "start it with `headrace local up`"


class NotALocalDirectory(Permanent):
    """The directory holds something else."""

    code = "HR-6503"
    what = "{path} is not empty and holds no local cluster"
    why = "headrace does not write into, or wipe, a directory that holds other files"
    fix = "choose an empty or a new directory with --dir"


class LocalStepFailed(Permanent):
    """A step of the start did not succeed."""

    code = "HR-6504"
    what = "the local cluster did not start: `headrace {step}` ended with exit code {exit_code}"
    why = "it said last: {said}"
    fix = "read {log}"


class LocalNotReady(Permanent):
    """Some of the cluster's processes are not ready in time."""

    code = "HR-6505"
    what = "the local cluster is up, and after {seconds:.0f} s these are not ready: {names}"
    why = "they said last: {said}"
    fix = "look at `headrace local status` and the logs in {logs}; `headrace local down` ends it"


class LocalEnded(Permanent):
    """The process that holds the cluster ended while it started."""

    code = "HR-6506"
    what = "the local cluster ended while it started"
    why = "its supervisor said last: {said}"
    fix = "read {log}"


class LocalWouldNotEnd(Permanent):
    """The process that holds the cluster does not end."""

    code = "HR-6507"
    what = "the cluster in {path} has not ended within {seconds:.0f} s"
    why = "a process drains longer than that, or hangs"
    fix = "wait, or kill process {pid}: all its processes end with it, and nothing stored is lost"
