"""Allow-list for control groups: limits and use, but no list of what runs in them."""

from __future__ import annotations

FILES = frozenset(
    [
        *("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.stat", "cpu.pressure"),
        *("cpuset.cpus.effective", "cpuset.effective_cpus"),
        *("memory.max", "memory.current", "memory.events"),
        *("memory.high", "memory.soft_limit_in_bytes"),
        *("cgroup.freeze", "cgroup.events", "freezer.state"),
        *("io.max", "io.weight", "io.bfq.weight", "blkio.weight", "blkio.bfq.weight"),
        *("blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"),
        *("blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device"),
        *("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control"),
    ]
)
"""Files of a guest's control group that may be kept."""
