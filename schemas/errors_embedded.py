"""Failures of the data directory and the embedded ClickHouse server: HR-50xx."""

from __future__ import annotations

from schemas.errors import Permanent, Transient


class DataDirectoryInUse(Permanent):
    """Another process holds the data directory's lock."""

    code = "HR-5001"
    what = "the data directory {path} is in use by process {pid}"
    why = "one data directory belongs to one process at a time"
    fix = (
        "query it with `headrace sql --data {path}` while that process runs, stop that process, "
        "or choose another directory with --data"
    )


class DataDirectoryOfOtherChain(Permanent):
    """The data directory was made for another chain."""

    code = "HR-5002"
    what = "the data directory {path} holds {stored}, not {asked}"
    why = "a data directory belongs to the chain it was made for"
    fix = "pass --chain for the chain it holds, or choose another directory with --data"


class DataDirectoryNewer(Permanent):
    """The data directory was written by a later version."""

    code = "HR-5003"
    what = "the data directory {path} has layout {stored}; this version knows {known}"
    why = "a later version of headrace wrote it"
    fix = "upgrade headrace to the version that wrote it, or choose another directory with --data"


class DataDirectoryDamaged(Permanent):
    """The data directory's own files cannot be read."""

    code = "HR-5004"
    what = "the data directory {path} is damaged: {detail}"
    why = "a file that headrace wrote is missing, cut short or changed"
    fix = (
        "restore the directory from a backup, or move it away and run again: "
        "the chain is indexed anew"
    )


class NotADataDirectory(Permanent):
    """The directory holds something else."""

    code = "HR-5005"
    what = "{path} is not empty and is not a headrace data directory"
    why = "headrace does not write into a directory that holds other files"
    fix = "choose an empty or a new directory with --data"


class PortTaken(Permanent):
    """A port that was asked for cannot be listened on."""

    code = "HR-5006"
    what = "port {port} on {host} is taken"
    why = "another program listens on it"
    fix = "stop that program, or pass port 0 to let the system choose a free one"


class ServerDidNotStart(Permanent):
    """The ClickHouse child process ended, or did not answer, while starting."""

    code = "HR-5007"
    what = "the embedded ClickHouse server did not start: {detail}"
    why = "its process ended or did not answer within {timeout_seconds} s"
    fix = "read {log}; if the directory is damaged, move it away and run again"


class ServerGone(Permanent):
    """The ClickHouse child process keeps ending."""

    code = "HR-5008"
    what = "the embedded ClickHouse server ended {attempts} times and is not started again"
    why = "it was killed or it crashed; the last exit code is {exit_code}"
    fix = "read {log}; check free memory and disk, then run again: nothing stored is lost"


class DataDirectoryUnwritable(Permanent):
    """The data directory cannot be made or written."""

    code = "HR-5009"
    what = "cannot write the data directory {path}: {detail}"
    why = "the file system refused"
    fix = "check owner, permissions and free space, or choose another directory with --data"


class EngineUnusable(Permanent):
    """The ClickHouse engine of the chdb-core wheel is not the one this version is made for."""

    code = "HR-5010"
    what = "the ClickHouse engine cannot be used: {detail}"
    why = "headrace {asked} is made for the engine in chdb-core {pinned} exactly"
    fix = "install it: pip install chdb-core=={pinned} (Linux x86-64 or aarch64, macOS arm64)"


class ServerUnreachable(Transient):
    """The server was running but does not answer."""

    code = "HR-5011"
    what = "the embedded ClickHouse server of {path} does not answer"
    why = "it is starting, stopping or overloaded"
    fix = "try again in a moment"
